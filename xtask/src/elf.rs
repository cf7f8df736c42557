//! What a built file asks of the machine it will run on.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, anyhow};
use object::Endianness;
use object::elf::{
    DF_1_NODELETE, DT_FLAGS_1, DT_NEEDED, EM_AARCH64, EM_X86_64, FileHeader64, SHT_DYNSYM,
    SHT_SYMTAB,
};
use object::read::StringTable;
use object::read::elf::{Dyn, FileHeader, SectionHeader, SectionTable, Sym};

type Header = FileHeader64<Endianness>;

/// A glibc symbol version such as 2.17 or 2.2.5.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc(Vec<u32>);

impl Glibc {
    /// The version `major.minor`.
    pub fn new(major: u32, minor: u32) -> Self {
        Self(vec![major, minor])
    }

    /// Reads the part after `GLIBC_`; `PRIVATE` and the like are no versions.
    fn parse(text: &str) -> Option<Self> {
        text.split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()
            .map(Self)
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// What an ELF file needs, as its dynamic section and version table say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The processor, in Rust's word.
    pub arch: &'static str,
    /// The highest versioned symbol of glibc; none for a file without any.
    pub glibc: Option<Glibc>,
    /// Symbol versions of glibc that are not numbers (`GLIBC_PRIVATE`): such
    /// symbols may change with any update.
    pub unstable: BTreeSet<String>,
    /// The shared libraries, by DT_NEEDED.
    pub libraries: BTreeSet<String>,
    /// The symbols that it shows to others.
    pub exports: BTreeSet<String>,
    /// True when the loader keeps the file mapped after dlclose().
    pub nodelete: bool,
    /// True when debugging sections were left in.
    pub debug_info: bool,
    /// True when symbols were left in that the loader does not need.
    pub symbols: bool,
}

impl Needs {
    /// Reads a 64-bit ELF file.
    ///
    /// # Errors
    /// When `data` is not one, or is damaged.
    pub fn read(data: &[u8]) -> Result<Self> {
        let header = Header::parse(data).context("not a 64-bit ELF file")?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let arch = match header.e_machine(endian) {
            EM_X86_64 => "x86_64",
            EM_AARCH64 => "aarch64",
            other => {
                return Err(anyhow!(
                    "built for ELF machine {other:?}, which is not supported"
                ));
            }
        };
        let mut needs = Self {
            arch,
            glibc: None,
            unstable: BTreeSet::new(),
            libraries: BTreeSet::new(),
            exports: BTreeSet::new(),
            nodelete: false,
            symbols: sections
                .iter()
                .any(|section| section.sh_type(endian) == SHT_SYMTAB),
            debug_info: sections.iter().any(|section| {
                sections
                    .section_name(endian, section)
                    .is_ok_and(|name| name.starts_with(b".debug"))
            }),
        };
        needs.read_dynamic(&sections, endian, data)?;
        needs.read_versions(&sections, endian, data)?;
        needs.read_exports(&sections, endian, data)?;
        Ok(needs)
    }

    fn read_dynamic(
        &mut self,
        sections: &SectionTable<'_, Header>,
        endian: Endianness,
        data: &[u8],
    ) -> Result<()> {
        let (entries, link) = sections
            .dynamic(endian, data)?
            .context("it has no dynamic section")?;
        let strings = sections.strings(endian, data, link)?;
        for entry in entries {
            match entry.tag(endian) {
                DT_NEEDED => {
                    let offset = u32::try_from(entry.val(endian))?;
                    self.libraries.insert(text(&strings, offset)?);
                }
                DT_FLAGS_1 => self.nodelete = entry.val(endian) & DF_1_NODELETE.0 != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_versions(
        &mut self,
        sections: &SectionTable<'_, Header>,
        endian: Endianness,
        data: &[u8],
    ) -> Result<()> {
        for section in sections.iter() {
            let Some((mut files, link)) = section.gnu_verneed(endian, data)? else {
                continue;
            };
            let strings = sections.strings(endian, data, link)?;
            while let Some((_, mut versions)) = files.next()? {
                while let Some(version) = versions.next()? {
                    self.add_version(&text(&strings, version.vna_name.get(endian))?);
                }
            }
        }
        Ok(())
    }

    fn read_exports(
        &mut self,
        sections: &SectionTable<'_, Header>,
        endian: Endianness,
        data: &[u8],
    ) -> Result<()> {
        let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
        let strings = symbols.strings();
        for symbol in symbols.iter() {
            if symbol.is_definition(endian, strings) {
                self.exports.insert(text(&strings, symbol.st_name(endian))?);
            }
        }
        Ok(())
    }

    fn add_version(&mut self, name: &str) {
        let Some(number) = name.strip_prefix("GLIBC_") else {
            return;
        };
        match Glibc::parse(number) {
            Some(version) => self.glibc = self.glibc.take().max(Some(version)),
            None => {
                self.unstable.insert(name.to_owned());
            }
        }
    }
}

fn text(strings: &StringTable<'_>, offset: u32) -> Result<String> {
    let bytes = strings
        .get(offset)
        .map_err(|()| anyhow!("its string table is damaged"))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_versions_compare_as_numbers_not_as_text() {
        let old = Glibc::parse("2.2.5");
        assert!(old < Some(Glibc::new(2, 17)));
        assert!(Glibc::parse("2.34") > Some(Glibc::new(2, 17)));
    }

    #[test]
    fn a_private_version_is_no_number() {
        assert_eq!(Glibc::parse("PRIVATE"), None);
    }

    #[test]
    fn this_very_test_needs_glibc_and_its_libraries() {
        let myself = std::env::current_exe().expect("the running program has a file");
        let data = std::fs::read(myself).expect("it can be read");
        let needs = Needs::read(&data).expect("it is an ELF file");
        assert_eq!(needs.arch, std::env::consts::ARCH);
        assert!(needs.glibc > Some(Glibc::new(2, 2)), "{:?}", needs.glibc);
        assert!(
            needs.libraries.contains("libc.so.6"),
            "{:?}",
            needs.libraries
        );
        assert!(!needs.nodelete);
    }

    #[test]
    fn what_is_no_elf_file_is_an_error() {
        for data in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0; 4096]] {
            assert!(Needs::read(data).is_err());
        }
    }
}
