//! The node's own log of jobs, one JSON line for each record.
//!
//! Root appends to it at the end of every job, several at once. All writers
//! hold one lock, which only root can take, so a line is never mixed with
//! another's; how long a line is does not matter. A line goes out in one
//! write(2). What a full disk left of it is cut off again; what a killed
//! writer left of it ends with a line break from the next writer, and the
//! reader reports it.
//!
//! The log is not synced: a crash of the machine may lose its last lines.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{LARGEST_RECORD, Problem, UsageError, UsageRecord};
use host::Deadline;
use host::state_dir::StateDir;
use host::sysroot::shown;
use host::trust;

/// How many logs that were put aside are kept: `jobs.jsonl.1` (the youngest)
/// to `jobs.jsonl.4`.
pub const KEPT: u32 = 4;

/// The lock's name, beside the log.
const LOCK: &str = "jobs.lock";

/// Most records that [`load_job`] returns.
const MOST_RECORDS: usize = 4096;

/// Where in a line the job's number stands at the latest; see [`UsageRecord`].
const HEAD: usize = 64;

/// Opens nothing that blocks, is a link, or reaches a child.
const CAREFULLY: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// Appends a record to the log, which is made if it is missing (readable by
/// all), as its folder is. A log of `max` bytes or more is put aside first.
///
/// # Errors
/// See [`UsageError`]; the log then has no part of the record.
pub fn append(
    log: &Path,
    max: u64,
    record: &UsageRecord,
    deadline: Deadline,
) -> Result<(), UsageError> {
    let line = record.to_line()?;
    let folder = log.parent().unwrap_or(Path::new("/"));
    // Nobody but root can write in this folder or replace it or one above it:
    // from here on its path can be used as well as its descriptor.
    let dir = StateDir::open(folder)?;
    let _lock = dir.lock(LOCK, deadline)?;
    let mut file = open_to_append(log)?;
    if metadata(&file, log)?.len() >= max {
        put_aside(log)?;
        file = open_to_append(log)?;
    }
    append_line(&mut file, &line).map_err(|source| UsageError::Io {
        action: "append to",
        path: log.to_owned(),
        source,
    })
}

fn open_to_append(log: &Path) -> Result<File, UsageError> {
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(CAREFULLY)
        .open(log)
        .map_err(|source| open_error(log, source))?;
    judge(log, &file)?;
    Ok(file)
}

/// By the one rule for what root believes.
fn judge(log: &Path, file: &File) -> Result<(), UsageError> {
    match trust::judge_file(log, file) {
        Ok(_) => Ok(()),
        Err(error) => Err(UsageError::Untrusted {
            path: log.to_owned(),
            reason: error.reason(log),
        }),
    }
}

fn metadata(file: &File, path: &Path) -> Result<Metadata, UsageError> {
    file.metadata().map_err(|source| UsageError::Io {
        action: "examine",
        path: path.to_owned(),
        source,
    })
}

fn open_error(path: &Path, source: io::Error) -> UsageError {
    let path = path.to_owned();
    if source.raw_os_error() == Some(libc::ELOOP) {
        let reason = "it is a symbolic link; put the file itself there".to_owned();
        return UsageError::Untrusted { path, reason };
    }
    let action = "open";
    UsageError::Io {
        action,
        path,
        source,
    }
}

/// `jobs.jsonl` becomes `.1`, `.1` becomes `.2`, …; the last is overwritten.
/// Whoever is killed in between leaves a gap, which the next turn closes.
fn put_aside(log: &Path) -> Result<(), UsageError> {
    for number in (0..KEPT).rev() {
        let (from, to) = (numbered(log, number), numbered(log, number + 1));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => {
                return Err(UsageError::Io {
                    action: "put aside",
                    path: from,
                    source,
                });
            }
        }
    }
    Ok(())
}

fn numbered(log: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return log.to_owned();
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// One write; the caller holds the lock.
fn append_line(file: &mut File, line: &str) -> io::Result<()> {
    let size = file.metadata()?.len();
    let text = if ends_torn(file, size)? {
        format!("\n{line}")
    } else {
        line.to_owned()
    };
    let written = loop {
        match file.write(text.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    all_or_nothing(file, size, text.len(), written)
}

/// Cuts off what was written of a line that did not fit. A regular file takes
/// a part only when there is no room for the rest.
fn all_or_nothing(file: &File, size: u64, length: usize, written: usize) -> io::Result<()> {
    if written == length {
        return Ok(());
    }
    file.set_len(size)?;
    Err(io::Error::from_raw_os_error(libc::ENOSPC))
}

fn ends_torn(file: &File, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}

/// The job's records in the node's log, oldest first, and what was found and
/// not used. A log that is not there has none.
///
/// # Errors
/// A log could not be opened, or others may write it or its folder.
pub fn load_job(log: &Path, job: u32) -> Result<(Vec<UsageRecord>, Vec<Problem>), UsageError> {
    let mut records = Vec::new();
    let mut problems = Vec::new();
    let folder = log.parent().unwrap_or(Path::new("/"));
    if StateDir::open_existing(folder)?.is_none() {
        return Ok((records, problems));
    }
    for number in (0..=KEPT).rev() {
        let path = numbered(log, number);
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(CAREFULLY)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(open_error(&path, source)),
        };
        judge(&path, &file)?;
        let meta = metadata(&file, &path)?;
        // What is appended from now on does not make this longer.
        let mut reader = BufReader::new(file.take(meta.len()));
        if let Err(error) = select(&mut reader, &path, job, &mut records, &mut problems) {
            let path = shown(&path);
            problems.push(Problem::new(&format!(
                "{path}: reading ended early: {error}"
            )));
        }
    }
    Ok((records, problems))
}

/// Takes the job's lines out of one log.
fn select(
    reader: &mut impl BufRead,
    path: &Path,
    job: u32,
    records: &mut Vec<UsageRecord>,
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    let needle = format!("\"job\":{job},");
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        line.clear();
        let limit = LARGEST_RECORD as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        if line.last() != Some(&b'\n') {
            reader.skip_until(b'\n')?;
        }
        let head = &line[..line.len().min(HEAD)];
        if !head.windows(needle.len()).any(|w| w == needle.as_bytes()) {
            continue;
        }
        let mut problem = |reason: &str| {
            let path = shown(path);
            problems.push(Problem::new(&format!(
                "{path}:{number}: not used: {reason}"
            )));
        };
        if records.len() == MOST_RECORDS {
            problem("there are more records of this job than are shown");
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line);
        match UsageRecord::from_line(&text) {
            Ok(record) if record.job == job => records.push(record),
            Ok(_) => problem("it names two jobs"),
            Err(reason) => problem(&reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    fn minute() -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log/jobs.jsonl");
        (dir, log)
    }

    fn add(log: &Path, record: &UsageRecord) -> Result<(), UsageError> {
        append(log, MIB, record, minute())
    }

    #[test]
    fn records_are_found_again_by_their_job() {
        let (_dir, log) = place();
        for job in [1, 12, 120, 12] {
            add(&log, &record(job, "n1", 5)).unwrap();
        }
        let (records, problems) = load_job(&log, 12).unwrap();
        assert_eq!(records, [record(12, "n1", 5), record(12, "n1", 5)]);
        assert_eq!(problems, []);
        assert_eq!(load_job(&log, 99).unwrap().0, []);
        assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_node_without_a_log_knows_of_no_job() {
        let (_dir, log) = place();
        assert_eq!(load_job(&log, 12).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_line_that_a_killed_writer_tore_spoils_no_other() {
        let (_dir, log) = place();
        add(&log, &record(11, "n1", 5)).unwrap();
        let torn = record(12, "n1", 5).to_line().unwrap();
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(&torn.as_bytes()[..100]).unwrap();
        add(&log, &record(12, "n2", 5)).unwrap();
        let (records, problems) = load_job(&log, 12).unwrap();
        assert_eq!(records, [record(12, "n2", 5)]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains("jobs.jsonl:2: not used"));
        assert_eq!(load_job(&log, 11).unwrap().0.len(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_and_leaves_no_part_of_the_line() {
        let mut full = OpenOptions::new()
            .read(true)
            .append(true)
            .open("/dev/full")
            .unwrap();
        let error = append_line(&mut full, "x\n").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn a_part_of_a_line_that_did_not_fit_is_cut_off_again() {
        let (_dir, log) = place();
        add(&log, &record(12, "n1", 5)).unwrap();
        let before = fs::read(&log).unwrap();
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        let written = file.write(b"{\"version\"").unwrap();
        let error = all_or_nothing(&file, before.len() as u64, 500, written).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(fs::read(&log).unwrap(), before);
    }

    #[test]
    fn a_log_that_is_large_is_put_aside_and_the_oldest_goes() {
        let (dir, log) = place();
        for job in 1..=8 {
            append(&log, 1, &record(job, "n1", 5), minute()).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "jobs.jsonl",
            "jobs.jsonl.1",
            "jobs.jsonl.2",
            "jobs.jsonl.3",
            "jobs.jsonl.4",
            "jobs.lock",
        ];
        assert_eq!(names, expected);
        for (job, kept) in [(3, 0), (4, 1), (8, 1)] {
            assert_eq!(load_job(&log, job).unwrap().0.len(), kept, "{job}");
        }
    }

    #[test]
    fn many_writers_at_once_lose_and_mix_nothing() {
        let (_dir, log) = place();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let log = &log;
                scope.spawn(move || {
                    for _ in 0..25 {
                        let record = record(writer + 1, "n1", 5);
                        append(log, 64 * 1024, &record, minute()).unwrap();
                    }
                });
            }
        });
        for writer in 0..8 {
            let (records, problems) = load_job(&log, writer + 1).unwrap();
            assert_eq!((records.len(), problems.len()), (25, 0));
        }
    }

    #[test]
    fn as_root_a_link_a_fifo_or_a_log_or_folder_that_others_may_write_is_refused() {
        let (dir, log) = place();
        let folder = log.parent().unwrap();
        fs::create_dir(folder).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "").unwrap();
        symlink(&victim, &log).unwrap();
        assert!(add(&log, &record(1, "n1", 5)).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"");
        fs::remove_file(&log).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&log).status();
        assert!(made.unwrap().success());
        assert!(add(&log, &record(1, "n1", 5)).is_err());
        assert!(load_job(&log, 1).is_err());
        fs::remove_file(&log).unwrap();
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(add(&log, &record(1, "n1", 5)).is_err());
        assert!(load_job(&log, 1).is_err());
        fs::remove_file(&log).unwrap();
        fs::write(&log, "").unwrap();
        std::os::unix::fs::chown(&log, Some(20_001), None).unwrap();
        assert!(add(&log, &record(1, "n1", 5)).is_err());
        assert!(load_job(&log, 1).is_err());
        fs::remove_file(&log).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(add(&log, &record(1, "n1", 5)).is_err());
        assert!(load_job(&log, 1).is_err());
        assert!(!log.exists());
    }

    #[test]
    fn hostile_content_is_told_of_and_skipped() {
        let (_dir, log) = place();
        fs::create_dir(log.parent().unwrap()).unwrap();
        let mut text = b"{\"version\":1,\"job\":12,\xff\x1b[2J}\n".to_vec();
        text.extend(b"{\"version\":1,\"job\":12,");
        text.extend(vec![b'['; 2 * LARGEST_RECORD]);
        text.extend(b"\n\0\n\n");
        fs::write(&log, text).unwrap();
        add(&log, &record(12, "n1", 5)).unwrap();
        let (records, problems) = load_job(&log, 12).unwrap();
        assert_eq!((records.len(), problems.len()), (1, 2));
        let said = format!("{}{}", problems[0], problems[1]);
        assert!(!said.contains('\x1b'));
    }
}
