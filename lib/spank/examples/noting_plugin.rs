//! A SPANK plugin for tests, `noting_plugin.so FILE WORD…`: it writes the words
//! to the file, a line each time that it is loaded.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use spank::{OptionSpec, OptionValue, Origin, Outcome, Plugin};

struct Noting;

impl Plugin for Noting {
    const OPTIONS: &'static [OptionSpec] = &[];

    fn load(arguments: &[OsString]) -> Self {
        if let Some((file, words)) = arguments.split_first()
            && let Ok(mut file) = OpenOptions::new().append(true).open(file)
        {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let _ = file.write_all(&[&words.join(&b' '), &b"\n"[..]].concat());
        }
        Self
    }

    fn option(&mut self, _: usize, _: OptionValue<'_>, _: Origin) -> Outcome {
        Ok(())
    }
}

spank::plugin! {
    name: "spank_noting",
    plugin: Noting,
    hooks: [],
}
