//! The site's folder of records: `FOLDER/JOB/NODE.json`, and
//! `FOLDER/JOB/NODE+STEP.json` for a step (`+` is in no node's name, a dot may be).
//!
//! It may be shared by all nodes. Root writes there, so nobody else may: a folder
//! that others may write is neither written nor read ([`host::trust`]). A record appears by a rename, synced before,
//! since some file systems find out only then that they are full.
//!
//! A shared file system that hangs, hangs its writer: no program can give a
//! time limit to that.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{LARGEST_RECORD, Problem, UsageError, UsageRecord};
use host::state_dir::{StateDir, StateError};
use host::sysroot::shown;

/// What [`UsageError::Io`] calls writing here.
pub(super) const WRITE: &str = "write";

/// Most records that [`load_job`] returns: 512 nodes with 127 steps each.
const MOST_RECORDS: usize = 64 * 1024;

/// Most problems that [`load_job`] tells of one by one.
const MOST_PROBLEMS: usize = 64;

/// Writes a record, in place of an earlier one of the same job, node and step.
/// The folder must exist: where a shared one is not mounted, nothing is to
/// be written below its mount point.
///
/// # Errors
/// See [`UsageError`]; an earlier record then stays.
pub fn write(folder: &Path, record: &UsageRecord) -> Result<(), UsageError> {
    let line = record.to_line()?;
    let Some(folder) = StateDir::open_existing(folder)? else {
        return Err(UsageError::Io {
            action: "open",
            path: folder.to_owned(),
            source: ErrorKind::NotFound.into(),
        });
    };
    // Nobody but root can write in these folders or replace one of them: from
    // here on their paths can be used as well as their descriptors.
    let dir = folder
        .folder(&record.job.to_string())
        .map_err(as_write_error)?;
    let name = file_name(record);
    let path = dir.path().join(&name);
    // One writer at a time has this name: its node is in it.
    let temporary = dir.path().join(format!(".{name}.new"));
    let written =
        write_synced(&temporary, line.as_bytes()).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|source| {
        // Best effort; the next record of this name removes it too.
        let _ = fs::remove_file(&temporary);
        UsageError::Io {
            action: WRITE,
            path,
            source,
        }
    })
}

/// Making the job's folder is the first thing that a file server refuses.
fn as_write_error(error: StateError) -> UsageError {
    match error {
        StateError::Io { path, source, .. } => UsageError::Io {
            action: WRITE,
            path,
            source,
        },
        other => other.into(),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn file_name(record: &UsageRecord) -> String {
    match record.step {
        Some(step) => format!("{}+{step}.json", record.node),
        None => format!("{}.json", record.node),
    }
}

/// The records of a job, sorted by file name, and what was found and not used.
/// Files are bounded in size and number, must be regular, and must be of the
/// job, node and step that their names say.
///
/// # Errors
/// The folder is missing, others may write it, or it cannot be listed. A job
/// without a folder in it has no records.
pub fn load_job(folder: &Path, job: u32) -> Result<(Vec<UsageRecord>, Vec<Problem>), UsageError> {
    let list_error = |path: &Path, source| UsageError::Io {
        action: "list",
        path: path.to_owned(),
        source,
    };
    let Some(all) = StateDir::open_existing(folder)? else {
        return Err(list_error(folder, ErrorKind::NotFound.into()));
    };
    let Some(folder) = all.existing_folder(&job.to_string())? else {
        return Ok((vec![], vec![]));
    };
    // As in `write`: nobody else can put another folder there.
    let dir = folder.path().to_owned();
    let entries = fs::read_dir(&dir).map_err(|source| list_error(&dir, source))?;
    let mut found = Found::default();
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|source| list_error(&dir, source))?
            .file_name();
        match name.into_string() {
            // What a writer has not finished.
            Ok(name) if name.starts_with('.') => {}
            Ok(_) if names.len() == MOST_RECORDS => {
                found.problem(&dir, "it has more files than are read");
                break;
            }
            Ok(name) => names.push(name),
            Err(name) => found.problem(&dir.join(name), "its name is not ours"),
        }
    }
    names.sort_unstable();
    for name in names {
        let path = dir.join(&name);
        match read(&folder, &name) {
            Ok(record) if record.job == job && file_name(&record) == name => {
                found.records.push(record);
            }
            Ok(_) => found.problem(&path, "its name and its content differ"),
            Err(reason) => found.problem(&path, &reason),
        }
    }
    Ok(found.finish())
}

#[derive(Default)]
struct Found {
    records: Vec<UsageRecord>,
    problems: Vec<Problem>,
    untold: usize,
}

impl Found {
    fn problem(&mut self, path: &Path, reason: &str) {
        if self.problems.len() == MOST_PROBLEMS {
            self.untold += 1;
            return;
        }
        let path = shown(path);
        self.problems
            .push(Problem::new(&format!("{path}: not used: {reason}")));
    }

    fn finish(mut self) -> (Vec<UsageRecord>, Vec<Problem>) {
        if self.untold > 0 {
            self.problems.push(Problem::new(&format!(
                "{} more files were not used",
                self.untold
            )));
        }
        (self.records, self.problems)
    }
}

/// One record, or why not.
fn read(folder: &StateDir, name: &str) -> Result<UsageRecord, String> {
    let file = match folder.open_file(name) {
        Ok(Some(file)) => file,
        Ok(None) => return Err("it is gone".to_owned()),
        Err(StateError::Untrusted { reason, .. }) => return Err(reason),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_RECORD as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    UsageRecord::from_line(&text)
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::super::tests::record;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn step(node: &str, step: Step) -> UsageRecord {
        UsageRecord {
            step: Some(step),
            ..record(12, node, 5)
        }
    }

    #[test]
    fn records_of_all_nodes_and_steps_come_back_and_a_dot_in_a_name_confuses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let all = [
            step("n1", Step::Batch),
            step("n1", Step::Number(0)),
            record(12, "n1", 5),
            record(12, "n1.0", 5),
        ];
        for record in &all {
            write(dir.path(), record).unwrap();
        }
        write(dir.path(), &record(13, "n1", 5)).unwrap();
        let (mut records, problems) = load_job(dir.path(), 12).unwrap();
        assert_eq!(problems, []);
        assert_eq!(records.len(), all.len());
        records.retain(|record| !all.contains(record));
        assert_eq!(records, []);
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("12"), mode("12/n1.json")), (0o755, 0o644));
    }

    #[test]
    fn a_later_record_of_the_same_node_replaces_the_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &record(12, "n1", 5)).unwrap();
        // Left by a writer that was killed.
        fs::write(dir.path().join("12/.n1.json.new"), "x").unwrap();
        write(dir.path(), &record(12, "n1", 6)).unwrap();
        let (records, problems) = load_job(dir.path(), 12).unwrap();
        assert_eq!((records, problems), (vec![record(12, "n1", 6)], vec![]));
        assert!(!dir.path().join("12/.n1.json.new").exists());
    }

    #[test]
    fn a_job_without_records_has_none_and_a_missing_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load_job(dir.path(), 12).unwrap(), (vec![], vec![]));
        let missing = dir.path().join("missing");
        assert!(load_job(&missing, 12).is_err());
        assert!(write(&missing, &record(12, "n1", 5)).is_err());
        assert!(!missing.exists());
    }

    #[test]
    fn nothing_is_written_where_users_may_write_or_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        for mode in [0o777, 0o1777, 0o775] {
            fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
            let error = write(&open, &record(12, "n1", 5)).unwrap_err().to_string();
            assert!(error.contains("chmod"), "{error}");
        }
        assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, open.join("12")).unwrap();
        assert!(write(&open, &record(12, "n1", 5)).is_err());
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_users_may_write_is_not_read_either() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &record(12, "n1", 5)).unwrap();
        for spoilt in ["", "12"] {
            let path = dir.path().join(spoilt);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            let error = load_job(dir.path(), 12).unwrap_err().to_string();
            assert!(error.contains("chmod go-w"), "{error}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(load_job(dir.path(), 12).unwrap().0.len(), 1);
    }

    #[test]
    fn as_root_a_record_that_users_may_change_is_reported_and_skipped() {
        let dir = tempfile::tempdir().unwrap();
        for node in ["n1", "n2", "n3"] {
            write(dir.path(), &record(12, node, 5)).unwrap();
        }
        let job = dir.path().join("12");
        fs::set_permissions(job.join("n2.json"), fs::Permissions::from_mode(0o666)).unwrap();
        std::os::unix::fs::chown(job.join("n3.json"), Some(20_001), None).unwrap();
        let (records, problems) = load_job(dir.path(), 12).unwrap();
        assert_eq!(records, [record(12, "n1", 5)]);
        assert!(
            problems[0].to_string().contains("chmod go-w"),
            "{problems:?}"
        );
        assert!(
            problems[1].to_string().contains("uid 20001"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_refusal_of_the_file_server_names_root_squash() {
        let error = as_write_error(StateError::Io {
            action: "make",
            path: "/fsx/12".into(),
            source: io::Error::from_raw_os_error(libc::EACCES),
        });
        assert!(error.to_string().contains("root_squash"), "{error}");
    }

    #[test]
    fn hostile_files_are_told_of_and_skipped() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &record(12, "n1", 5)).unwrap();
        let job = dir.path().join("12");
        let line = record(12, "n1", 5).to_line().unwrap();
        fs::write(job.join("n2.json"), &line).unwrap();
        fs::write(job.join("n3.json"), line.replace("12,", "13,")).unwrap();
        fs::write(job.join("n4.json"), vec![b'['; LARGEST_RECORD + 1]).unwrap();
        fs::write(job.join("n5.json"), b"\xff\xfe").unwrap();
        fs::write(job.join("n6\x1b[2J.json"), "{}").unwrap();
        symlink("n1.json", job.join("n7.json")).unwrap();
        symlink("/dev/zero", job.join("n8.json")).unwrap();
        fs::create_dir(job.join("n9.json")).unwrap();
        let fifo = job.join("n10.json");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let (records, problems) = load_job(dir.path(), 12).unwrap();
        assert_eq!(records, [record(12, "n1", 5)]);
        assert_eq!(problems.len(), 9, "{problems:?}");
        assert!(problems.iter().all(|p| !p.to_string().contains('\x1b')));
    }
}
