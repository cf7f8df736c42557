//! What outlives a login besides processes: where logins end with their jobs,
//! cron, at and lingering start a user's processes without any.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::look::{Look, warning};
use crate::setup::discover::Site;
use config::sections::logout;
use host::printable;

/// Folders with a file for each user who has a crontab: Debian's, RHEL's.
const CRONTABS: [&str; 2] = ["/var/spool/cron/crontabs", "/var/spool/cron"];

/// Folders with at's jobs, which belong to their users.
const AT_JOBS: [&str; 2] = ["/var/spool/cron/atjobs", "/var/spool/at"];

/// Entries of a folder that are looked at.
const MOST: usize = 10_000;

pub(super) fn outlive(site: &Site) -> Look {
    let settings = site
        .config
        .as_ref()
        .ok()
        .and_then(|it| logout::Section::of(it).ok());
    let mut exempt: BTreeSet<String> = BTreeSet::from(["root".to_owned()]);
    exempt.extend(settings.into_iter().flat_map(|it| it.exempt_users));
    let counts = |user: &String| !exempt.contains(user);
    if let Some(user) = files(&site.place("/var/lib/systemd/linger")).find(counts) {
        let user = printable(&user, 64);
        return warning(
            format!("{user} may linger: systemd runs {user}'s services without a login or job"),
            format!("loginctl disable-linger {user}"),
        );
    }
    for folder in CRONTABS {
        if let Some(user) = files(&site.place(folder)).find(counts) {
            let user = printable(&user, 64);
            return warning(
                format!("{user} has a crontab here: cron starts processes without a job"),
                format!("crontab -u {user} -r, and name who may have one in /etc/cron.allow"),
            );
        }
    }
    for folder in AT_JOBS {
        if let Some(user) = owners(&site.place(folder)).find(counts) {
            return warning(
                format!(
                    "{} has a job of at(1) here: it starts without a job of Slurm",
                    printable(&user, 64)
                ),
                "remove it with atrm, and name who may have one in /etc/at.allow",
            );
        }
    }
    Ok("no user has lingering, a crontab or a job of at(1) here".to_owned())
}

/// The names of a folder's files.
fn files(folder: &Path) -> impl Iterator<Item = String> {
    entries(folder).filter_map(|it| it.file_name().into_string().ok())
}

/// The owners of a folder's files.
fn owners(folder: &Path) -> impl Iterator<Item = String> {
    entries(folder).filter_map(|it| {
        let user = uzers::get_user_by_uid(it.metadata().ok()?.uid())?;
        Some(user.name().to_string_lossy().into_owned())
    })
}

/// A folder's files, without hidden ones: at counts in `.SEQ`.
fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.take(MOST).filter(|it| {
        let is_hidden = it.file_name().as_encoded_bytes().starts_with(b".");
        !is_hidden && it.file_type().is_ok_and(|kind| kind.is_file())
    })
}
