#![no_main]
//! /opt/amazon/efa_installed_packages: every entry is a part of its line.

use efa::software::parse_manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let manifest = parse_manifest(text);
    let lines: Vec<&str> = text.lines().collect();
    for entry in manifest.packages.iter().chain(&manifest.installer) {
        let line = lines[entry.line - 1];
        assert!(line.contains(&entry.package) && line.contains(&entry.version));
    }
    for entry in &manifest.packages {
        assert!(!entry.package.is_empty());
        assert!(entry.version.starts_with(|c: char| c.is_ascii_digit()));
    }
});
