//! A .deb, compressed as Debian compresses its own.
//!
//! nfpm's xz is made for speed: what it compresses is a third larger than what
//! xz(1) makes of the same bytes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// The member with the files; deb(5).
const DATA: &[u8] = b"data.tar.xz";

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Compresses the files in a .deb by xz(1), which is the same everywhere for one
/// version of it. Nothing else in the package changes.
///
/// # Errors
/// It is no .deb whose files nfpm compressed by xz, or xz fails.
pub(super) fn compress(deb: &Path, scratch: &Path) -> Result<()> {
    let bytes = fs::read(deb)?;
    let mut made = MAGIC.to_vec();
    let mut rest = bytes.strip_prefix(MAGIC).context("it is no archive")?;
    let mut found = false;
    while !rest.is_empty() {
        let (header, data) = rest.split_at_checked(HEADER).context("a header is cut")?;
        let size = std::str::from_utf8(&header[48..58])?.trim().parse()?;
        let (data, after) = data.split_at_checked(size).context("a member is cut")?;
        if header.starts_with(DATA) {
            found = true;
            append(&mut made, header, &again(data, scratch)?);
        } else {
            append(&mut made, header, data);
        }
        // Members start at even places.
        rest = after.get(size % 2..).unwrap_or_default();
    }
    if !found {
        bail!("its files are not compressed by xz");
    }
    Ok(fs::write(deb, made)?)
}

fn append(archive: &mut Vec<u8>, header: &[u8], data: &[u8]) {
    archive.extend(&header[..48]);
    archive.extend(format!("{:<10}", data.len()).bytes());
    archive.extend(&header[58..]);
    archive.extend(data);
    if data.len() % 2 == 1 {
        archive.push(b'\n');
    }
}

fn again(data: &[u8], scratch: &Path) -> Result<Vec<u8>> {
    let (packed, plain) = (scratch.join("data.tar.xz"), scratch.join("data.tar"));
    fs::write(&packed, data)?;
    xz(&["--decompress"], &packed, &plain)?;
    // Several threads would cut it into blocks by the number of processors.
    xz(&["-9", "--threads=1"], &plain, &packed)?;
    Ok(fs::read(packed)?)
}

fn xz(how: &[&str], from: &Path, to: &Path) -> Result<()> {
    let mut xz = Command::new("xz");
    xz.args(how).args(["--stdout", "--"]).arg(from);
    xz.stdout(File::create(to)?);
    command::run(&mut xz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_compressed_again_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (text, packed) = (dir.path().join("text"), dir.path().join("text.xz"));
        fs::write(&text, "the same words again and again\n".repeat(1000)).unwrap();
        xz(&["-0"], &text, &packed).unwrap();
        let mut archive = MAGIC.to_vec();
        let header = |name: &str| format!("{name:<16}0           0     0     100644  {:<10}`\n", 0);
        append(&mut archive, header("debian-binary").as_bytes(), b"2.0\n");
        append(&mut archive, header("control.tar.gz").as_bytes(), b"odd");
        let data = fs::read(&packed).unwrap();
        append(&mut archive, header("data.tar.xz").as_bytes(), &data);
        let deb = dir.path().join("a.deb");
        fs::write(&deb, &archive).unwrap();
        compress(&deb, dir.path()).unwrap();
        let made = fs::read(&deb).unwrap();
        let until = archive.len() - data.len() - data.len() % 2 - HEADER;
        assert_eq!(made[..until], archive[..until]);
        compress(&deb, dir.path()).unwrap();
        assert_eq!(fs::read(&deb).unwrap(), made, "twice is once");
        fs::write(&deb, &archive[..until]).unwrap();
        assert!(compress(&deb, dir.path()).is_err(), "without files");
    }
}
