//! Two sets of bindings, item by item.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use quote::ToTokens;
use syn::{FnArg, ForeignItem, Item, ItemForeignMod, ItemUse, UseTree};

/// What another release's header says about one item of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The other header has an item that we lack.
    Added(String),
    /// The other header lacks an item that we have.
    Removed(String),
    /// Both have it, with different meaning.
    Changed {
        /// The item's name.
        name: String,
        /// Its meaning in the tree.
        ours: String,
        /// Its meaning in the other header.
        theirs: String,
    },
}

impl Difference {
    /// The name of the item that differs.
    pub fn name(&self) -> &str {
        match self {
            Self::Added(name) | Self::Removed(name) | Self::Changed { name, .. } => name,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(name) => write!(f, "added    {name}"),
            Self::Removed(name) => write!(f, "removed  {name}"),
            Self::Changed { name, ours, theirs } => {
                write!(
                    f,
                    "changed  {name}\n           here:  {ours}\n           there: {theirs}"
                )
            }
        }
    }
}

/// Every difference between `ours` and `theirs`, two generated files.
///
/// # Errors
/// When one of them is not Rust.
pub fn compare(ours: &str, theirs: &str) -> Result<Vec<Difference>> {
    let ours = meanings(ours).context("the bindings in the tree")?;
    let theirs = meanings(theirs).context("the bindings made from the header")?;
    let mut differences = Vec::new();
    for (name, meaning) in &ours {
        match theirs.get(name) {
            None => differences.push(Difference::Removed(name.clone())),
            Some(other) if other != meaning => differences.push(Difference::Changed {
                name: name.clone(),
                ours: meaning.clone(),
                theirs: other.clone(),
            }),
            Some(_) => {}
        }
    }
    let added = theirs.keys().filter(|name| !ours.contains_key(*name));
    differences.extend(added.map(|name| Difference::Added(name.clone())));
    Ok(differences)
}

/// Each item's name with its meaning: what a caller's machine code depends on.
/// Parameter names and layout of the text are left out.
fn meanings(source: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for item in syn::parse_file(source)?.items {
        match item {
            Item::ForeignMod(block) => found.extend(functions(&block)),
            Item::Const(item) if item.ident == "_" => {
                let text = item.expr.to_token_stream().to_string();
                found.insert(layout_name(&text), text);
            }
            Item::Const(item) => {
                found.insert(
                    item.ident.to_string(),
                    item.expr.to_token_stream().to_string(),
                );
            }
            Item::Type(item) => {
                found.insert(
                    item.ident.to_string(),
                    item.ty.to_token_stream().to_string(),
                );
            }
            Item::Struct(item) => {
                found.insert(
                    item.ident.to_string(),
                    item.fields.to_token_stream().to_string(),
                );
            }
            Item::Use(ItemUse {
                tree: UseTree::Path(path),
                ..
            }) => {
                found.extend(renaming(&path.tree));
            }
            other => {
                let text = other.to_token_stream().to_string();
                found.insert(text.clone(), text);
            }
        }
    }
    Ok(found)
}

fn functions(block: &ItemForeignMod) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in &block.items {
        let ForeignItem::Fn(function) = item else {
            let text = item.to_token_stream().to_string();
            found.insert(text.clone(), text);
            continue;
        };
        let signature = &function.sig;
        let mut types: Vec<String> = Vec::new();
        for input in &signature.inputs {
            types.push(match input {
                FnArg::Typed(argument) => argument.ty.to_token_stream().to_string(),
                FnArg::Receiver(receiver) => receiver.to_token_stream().to_string(),
            });
        }
        if signature.variadic.is_some() {
            types.push("...".to_owned());
        }
        let output = signature.output.to_token_stream();
        found.insert(
            signature.ident.to_string(),
            format!("fn({}) {output}", types.join(", ")),
        );
    }
    found
}

/// bindgen writes a typedef of an enum as `use self::enum as typedef`.
fn renaming(tree: &UseTree) -> Option<(String, String)> {
    match tree {
        UseTree::Rename(rename) => Some((rename.rename.to_string(), rename.ident.to_string())),
        _ => None,
    }
}

/// A layout assertion has no name of its own; its first message names the type.
fn layout_name(text: &str) -> String {
    let message = text.split('"').nth(1).unwrap_or(text);
    format!("layout: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"
        pub const S_JOB_UID: spank_item = 0;
        pub type spank_item = ::core::ffi::c_uint;
        unsafe extern "C" { pub fn spank_remote(spank: spank_t) -> ::core::ffi::c_int; }
        const _: () = { ["Size of spank_option"][::core::mem::size_of::<spank_option>() - 40usize]; };
    "#;

    fn against(theirs: &str) -> Vec<Difference> {
        compare(OURS, theirs).expect("both sides are Rust")
    }

    #[test]
    fn equal_bindings_have_no_difference() {
        assert_eq!(against(OURS), []);
    }

    #[test]
    fn a_renamed_parameter_is_no_difference() {
        assert_eq!(
            against(&OURS.replace("spank: spank_t", "handle: spank_t")),
            []
        );
    }

    #[test]
    fn a_renumbered_constant_is_changed() {
        let differences = against(&OURS.replace("= 0;", "= 1;"));
        assert!(
            matches!(&differences[..], [Difference::Changed { name, .. }] if name == "S_JOB_UID"),
            "{differences:?}"
        );
    }

    #[test]
    fn a_grown_struct_is_changed() {
        let differences = against(&OURS.replace("40usize", "48usize"));
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!(differences[0].name(), "layout: Size of spank_option");
    }

    #[test]
    fn a_new_parameter_is_changed() {
        let differences = against(&OURS.replace("spank: spank_t", "spank: spank_t, deep: bool"));
        assert_eq!(differences.len(), 1, "{differences:?}");
        assert_eq!(differences[0].name(), "spank_remote");
    }

    #[test]
    fn a_function_that_only_one_side_has_is_added_or_removed() {
        let more = format!("{OURS} unsafe extern \"C\" {{ pub fn spank_new(); }}");
        assert_eq!(against(&more), [Difference::Added("spank_new".to_owned())]);
        let less = compare(&more, OURS).expect("both sides are Rust");
        assert_eq!(less, [Difference::Removed("spank_new".to_owned())]);
    }
}
