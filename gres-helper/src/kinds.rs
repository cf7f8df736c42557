//! A GPU's model as `Type=`.
//!
//! Jobs ask for it (`--gres=gpu:h100:2`), so it is short; it begins with a letter,
//! since Slurm takes `gpu:6000` for a number of GPUs; and only one product of the machine
//! has it. Slurm's own detection names a GPU by its product, and takes each `Type=`
//! that is a part of that name, so every type here is one.

use std::collections::{BTreeMap, BTreeSet};

/// The words before a model that say whose it is.
const BRANDS: [&str; 4] = ["nvidia", "tesla", "geforce", "quadro"];

/// What Slurm's detection calls a product: `nvidia_h100_80gb_hbm3` for `NVIDIA H100 80GB
/// HBM3`.
#[must_use]
pub fn detected(product: &str) -> String {
    let lower = product.to_ascii_lowercase();
    lower.split_ascii_whitespace().collect::<Vec<_>>().join("_")
}

/// A type for each of the products of a machine, by what Slurm calls them; none for a
/// product whose name has no model, or what Slurm takes no type from.
#[must_use]
pub fn of<'p>(products: impl Iterator<Item = &'p str>) -> BTreeMap<String, String> {
    let all: BTreeSet<String> = products.map(detected).collect();
    let kind = |name: &String| {
        let is_unique = |part: &&str| {
            all.iter()
                .all(|other| other == name || !other.contains(*part))
        };
        let kind = parts(name)?.into_iter().find(is_unique).unwrap_or(name);
        Some((name.clone(), kind.to_owned()))
    };
    all.iter().filter_map(kind).collect()
}

/// The parts of a name that may be its type, the shortest first: the model, then
/// with more and more of what follows.
fn parts(name: &str) -> Option<Vec<&str>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if !name.bytes().all(allowed) {
        return None;
    }
    let mut words = Vec::new();
    let mut start = 0;
    for word in name.split(['_', '-']) {
        words.push((start, word));
        start += word.len() + 1;
    }
    let has_digit = |(_, word): &(usize, &str)| word.bytes().any(|byte| byte.is_ascii_digit());
    let model = words.iter().position(has_digit)?;
    let begins_with_letter = |word: &str| word.starts_with(|c: char| c.is_ascii_alphabetic());
    let first = match begins_with_letter(words[model].1) {
        true => model,
        // `rtx_pro_6000`: what stands before the number, but for the brand.
        false => {
            let before = words[..model].iter();
            let brands = before.take_while(|(_, word)| BRANDS.contains(word)).count();
            if brands < model { brands } else { 0 }
        }
    };
    let from = words[first].0;
    if !begins_with_letter(&name[from..]) {
        return None;
    }
    let ends = words[model..]
        .iter()
        .map(|(start, word)| start + word.len());
    Some(ends.map(|end| &name[from..end]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(products: &[&str]) -> Vec<Option<String>> {
        let kinds = of(products.iter().copied());
        let of = |product: &&str| kinds.get(&detected(product)).cloned();
        products.iter().map(of).collect()
    }

    #[test]
    fn a_model_alone_is_the_word_of_its_name_with_a_digit() {
        for (product, kind) in [
            ("NVIDIA A100-SXM4-40GB", Some("a100")),
            ("NVIDIA H100 80GB HBM3", Some("h100")),
            ("NVIDIA L40S", Some("l40s")),
            ("NVIDIA GH200 480GB", Some("gh200")),
            ("Tesla T4", Some("t4")),
            ("Tesla V100-SXM2-32GB", Some("v100")),
            ("NVIDIA RTX A6000", Some("a6000")),
            ("", None),
            ("NVIDIA Graphics", None),
            ("NVIDIA H100, 80GB", None),
            ("80GB", None),
        ] {
            assert_eq!(kinds(&[product]), [kind.map(str::to_owned)], "{product}");
        }
    }

    #[test]
    fn a_type_is_no_number() {
        for (product, kind) in [
            (
                "NVIDIA RTX PRO 6000 Blackwell Server Edition",
                "rtx_pro_6000",
            ),
            ("NVIDIA GeForce RTX 4090", "rtx_4090"),
            ("Quadro RTX 6000", "rtx_6000"),
            ("NVIDIA 4090", "nvidia_4090"),
        ] {
            assert_eq!(kinds(&[product]), [Some(kind.to_owned())], "{product}");
        }
    }

    #[test]
    fn two_products_of_one_machine_have_two_types() {
        let two = kinds(&["NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"]);
        let want = ["a100-sxm4-40gb", "a100-sxm4-80gb"].map(|kind| Some(kind.to_owned()));
        assert_eq!(two, want);
        let two = kinds(&["NVIDIA A10", "NVIDIA A100 80GB PCIe", "NVIDIA A10"]);
        let want = ["nvidia_a10", "a100", "nvidia_a10"].map(|kind| Some(kind.to_owned()));
        assert_eq!(two, want);
    }

    proptest! {
        #[test]
        fn every_type_begins_with_a_letter_is_a_part_of_its_name_and_of_no_other_type(
            names in prop::collection::vec("(NVIDIA |Tesla |)([A-Za-z0-9]{1,4}[ -]){0,3}[A-Z]?[0-9]{1,3}", 1..4)
        ) {
            let kinds = of(names.iter().map(String::as_str));
            let mut seen = BTreeSet::new();
            for (name, kind) in &kinds {
                prop_assert!(kind.starts_with(|c: char| c.is_ascii_lowercase()), "{kind}");
                prop_assert!(name.contains(kind));
                prop_assert!(seen.insert(kind), "{kind} twice");
            }
        }

        #[test]
        fn no_name_makes_it_panic(name in "\\PC{0,40}") {
            let _ = of(std::iter::once(name.as_str()));
        }
    }
}
