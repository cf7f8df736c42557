//! `cargo xtask configuration`: the slurm-efa.toml that is shipped and its
//! manual page, from the table of all keys.

use std::fs;

use anyhow::{Context, Result, bail};
use config::reference::{Key, PROFILE, SECTIONS, Without};

use crate::command;

/// Where editors find the schema; the package has it there.
pub const SCHEMA: &str = "/usr/share/slurm-efa/slurm-efa.schema.json";

/// A file that is made, and what makes it.
type Made = (&'static str, fn() -> String);

const FILES: [Made; 2] = [
    ("packaging/etc/slurm-efa.toml", shipped),
    ("packaging/man/slurm-efa.toml.5", manual),
];

/// Longest line of a comment.
const WIDTH: usize = 100;

/// Writes both, or says that one differs.
pub fn configuration(check: bool) -> Result<()> {
    for (file, make) in FILES {
        let path = command::workspace().join(file);
        if !check {
            fs::write(&path, make()).with_context(|| format!("cannot write {file}"))?;
        } else if fs::read_to_string(&path).ok() != Some(make()) {
            bail!(
                "{file} is not what lib/config/src/reference.rs makes of it; run `cargo xtask configuration`"
            );
        }
    }
    Ok(())
}

fn shipped() -> String {
    let mut text = format!(
        "#:schema file://{SCHEMA}\n\n{}",
        comment(
            "slurm-efa: see slurm-efa.toml(5). Every key is optional, and each value that is shown holds \
             without its key, unless the comment says otherwise. Check a change with `slurm-efa config check`."
        )
    );
    for section in &SECTIONS {
        text.push('\n');
        text.push_str(&comment(section.about));
        if let Some(header) = section.header() {
            text.push_str(&format!("#{header}\n"));
        }
        for key in section.keys {
            text.push('\n');
            text.push_str(&comment(&explained(key)));
            text.push_str(&format!("#{} = {}\n", key.name, key.example()));
        }
    }
    text
}

/// What a key does and takes, and what holds without it.
fn explained(key: &Key) -> String {
    let Key { about, kind, .. } = key;
    match key.without {
        Without::Value(_) => format!("{about} ({kind})"),
        Without::Means(means, _) => format!("{about} ({kind}; without it: {means})"),
    }
}

/// Lines of a comment in TOML.
fn comment(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() + 3 > WIDTH);
        match lines.last_mut() {
            Some(line) if !full => *line = format!("{line} {word}"),
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.iter().map(|line| format!("#{line}\n")).collect()
}

const HEAD: &str = r#".\" Made by `cargo xtask configuration` from lib/config/src/reference.rs.
.TH SLURM\-EFA.TOML 5 "" "slurm-efa" "Slurm on AWS"
.SH NAME
slurm\-efa.toml \- configuration of slurm\-efa
.SH DESCRIPTION
.I /etc/slurm\-efa/slurm\-efa.toml
configures the plugins of Slurm, the PAM module and all programs of slurm\-efa. It is TOML, and the same on
login nodes and compute nodes. Every key is optional, and so is the file. The file, every folder above it
and every symbolic link on the way must belong to root, and nobody else may write them.
.PP
An unknown key or a wrong value is refused by the programs that read its section.
.B slurm\-efa config check
finds all mistakes,
.B slurm\-efa config show
prints what holds and where it comes from, and
.B slurm\-efa config schema
prints a JSON Schema for editors.
.SH VALUES
.TP
.B duration
A whole number and
.BR ms ", " s ", " m ", " h " or " d ,
such as \(dq60s\(dq. Zero needs no unit.
.TP
.B size
A whole number and
.BR K ", " M ", " G " or " T ,
powers of 1024, such as \(dq10G\(dq. \(dqGiB\(dq is the same as \(dqG\(dq.
"#;

const TAIL: &str = r#".SH FILES
.TP
.I /etc/slurm\-efa/slurm\-efa.toml
The configuration, unless
.B config=FILE
in plugstack.conf or the PAM stack, or
.B \-\-config FILE
of a program names another.
.TP
.I /usr/share/slurm\-efa/slurm\-efa.schema.json
The JSON Schema.
.SH EXAMPLES
.EX
default_profile = "auto"

[profile.fsdp]
base = "p5"
env = { FI_EFA_USE_HUGE_PAGE = "0" }
unset = ["NCCL_PROTO", "NCCL_ALGO"]

[hugepages]
max = "48G"

[health]
on_fatal = "log"
.EE
.SH SEE ALSO
.BR slurm\-efa (8),
.BR spank_efa (8),
.BR efa\-check (8),
.BR pam_slurm_logout (8),
.BR slurm\-logoutd (8),
.BR gres\-helper (8)
"#;

fn manual() -> String {
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        let title = match section.name {
            "" => "TOP LEVEL".to_owned(),
            PROFILE => "[profile.NAME]".to_owned(),
            name => format!("[{name}]"),
        };
        text.push_str(&format!(".SH {}\n", roff(&title)));
        text.push_str(&roff(section.about));
        text.push_str(&format!("\nSee {}.\n", roff(section.page)));
        text.extend(section.keys.iter().map(entry));
    }
    text + TAIL
}

fn entry(key: &Key) -> String {
    let without = match key.without {
        Without::Value(value) => format!("Default: {value}."),
        Without::Means(means, example) => format!("Example: {example}. Without it: {means}."),
    };
    let kind = key.kind.to_string();
    format!(
        ".TP\n.B {}\n{}\n.br\n{}. {}\n",
        roff(key.name),
        roff(key.about),
        roff(&(kind[..1].to_uppercase() + &kind[1..])),
        roff(&without)
    )
}

/// Text without characters that troff reads as its own.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let text = text.replace('"', "\\(dq").replace('\'', "\\(aq");
    match text.starts_with('.') {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_configuration_and_its_manual_page_are_what_the_table_makes() {
        configuration(true).expect("as made");
    }
}
