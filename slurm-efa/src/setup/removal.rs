//! What would still need the package once a revert is done. A PAM stack that
//! requires a missing module locks everyone out, and a missing prolog drains the
//! node, so a removal looks at this first.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use host::printable;

use super::discover::Site;
use super::files::{self, Change, Content};
use super::paths::NHC_CONF;
use super::plan::Plan;

/// Largest part of a file that is looked at, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Where Slurm's configuration may lie: Debian's and RHEL's, Slurm's own default,
/// HyperPod's and ParallelCluster's.
const SLURM: [&str; 4] = [
    "/etc/slurm",
    "/etc/slurm-llnl",
    "/usr/local/etc",
    "/opt/slurm/etc",
];

/// What stands in a line that names a file of the package or a link to one.
const NAMES: [&str; 7] = [
    "/usr/lib/slurm-efa/",
    "/etc/slurm-efa/",
    "pam_slurm_logout.so",
    "spank_efa.so",
    "spank_gres.so",
    "/efa-check",
    "/gres-helper",
];

/// Why the package is still needed after this revert: a sentence for each file,
/// and what the revert itself leaves. Empty where nothing needs it.
#[must_use]
pub fn still_needed(site: &Site, plan: &Plan) -> Vec<String> {
    let places = |path: &str| site.place(path);
    let mut folders = SLURM.map(places).to_vec();
    let conf = site.slurm.slurm_conf.as_deref().and_then(Path::parent);
    folders.extend(conf.filter(|_| site.has_original()).map(Path::to_path_buf));
    folders.dedup();
    let mut sentences = plan.notes.clone();
    let mut all = candidates(&folders, &places("/etc/pam.d"));
    all.push(places(NHC_CONF));
    sentences.extend(all.iter().filter_map(|path| needed(path, &plan.changes)));
    sentences
}

/// The files that may name the package's.
fn candidates(folders: &[PathBuf], pam: &Path) -> Vec<PathBuf> {
    let mut all = entries(pam);
    for folder in folders {
        let is_conf = |it: &PathBuf| it.extension().is_some_and(|it| it == "conf");
        all.extend(entries(folder).into_iter().filter(is_conf));
        all.extend(entries(&folder.join("plugstack.conf.d")));
        // ParallelCluster's prologs and epilogs.
        let is_folder = |it: &PathBuf| it.extension().is_some_and(|it| it == "d");
        for folder in entries(&folder.join("scripts"))
            .iter()
            .filter(|it| is_folder(it))
        {
            all.extend(entries(folder));
        }
    }
    all.sort();
    all.dedup();
    all
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| it.path()).collect()
}

/// Why a file still needs the package once these changes are made.
fn needed(path: &Path, changes: &[Change]) -> Option<String> {
    let shown = printable(&path.to_string_lossy(), 300);
    let change = changes
        .iter()
        .find(|it| it.path == path || it.path == files::resolved(path));
    let text = match change.map(|it| &it.after) {
        Some(Content::Nothing) => return None,
        Some(Content::Text(text) | Content::Script(text)) => text.clone(),
        Some(Content::Link(_)) | None => {
            let target = fs::read_link(path).unwrap_or_default();
            let target = target.to_string_lossy();
            if names_ours(&target) {
                return Some(format!(
                    "{shown} is a link to {}, and revert leaves it here; remove it, or run \
                     `slurm-efa revert --role controller` on the controller if setup made it there",
                    printable(&target, 300)
                ));
            }
            read(path)?
        }
    };
    let line = text.lines().position(names_ours)?;
    Some(format!(
        "{shown}: line {} names a file of slurm-efa, and setup did not write it; remove that line",
        line + 1
    ))
}

/// The start of a regular file; a file that cannot be read is Slurm's problem
/// before it is ours.
fn read(path: &Path) -> Option<String> {
    if !fs::metadata(path).is_ok_and(|it| it.is_file()) {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a line that is not a comment names a file of the package. The script
/// that runs before removal looks for the same.
fn names_ours(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let program = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t']);
    NAMES.iter().any(|it| line.contains(it)) || line.split("/slurm-efa").skip(1).any(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(root: &Path, path: &str, text: &str) -> PathBuf {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn found(root: &Path, changes: &[Change]) -> Vec<String> {
        let folders = SLURM.map(|it| root.join(&it[1..]));
        let mut all = candidates(&folders, &root.join("etc/pam.d"));
        all.push(root.join(&NHC_CONF[1..]));
        all.iter().filter_map(|it| needed(it, changes)).collect()
    }

    #[test]
    fn a_line_that_setup_did_not_write_keeps_the_package_and_is_named() {
        for (path, line) in [
            (
                "etc/pam.d/su",
                "account required /usr/lib/slurm-efa/pam_slurm_logout.so",
            ),
            ("etc/pam.d/sshd", "-session optional pam_slurm_logout.so"),
            ("etc/slurm/slurm.conf", "Prolog=/etc/slurm-efa/prolog.d/*"),
            (
                "etc/slurm-llnl/slurm.conf",
                "HealthCheckProgram=/usr/sbin/efa-check-healthcheck",
            ),
            (
                "usr/local/etc/plugstack.conf.d/9.conf",
                "optional /usr/lib/slurm-efa/spank_gres.so",
            ),
            (
                "opt/slurm/etc/scripts/prolog.d/90-site",
                "exec /usr/bin/gres-helper prolog",
            ),
            (
                "etc/nhc/nhc.conf",
                "* || { /usr/sbin/efa-check healthcheck || :; }",
            ),
            (
                "opt/slurm/etc/scripts/epilog.d/90-site",
                "/usr/bin/slurm-efa reconcile",
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            let path = file(root.path(), path, &format!("# efa-check\n{line}\n"));
            let said = found(root.path(), &[]);
            assert_eq!(said.len(), 1, "{line}: {said:?}");
            assert!(
                said[0].contains(&format!("{}: line 2 ", path.display())),
                "{said:?}"
            );
        }
    }

    #[test]
    fn comments_and_files_of_others_keep_nothing() {
        let root = tempfile::tempdir().unwrap();
        file(
            root.path(),
            "etc/slurm/slurm.conf",
            "#Prolog=/usr/sbin/efa-check-prolog\nProlog=/opt/efa\n",
        );
        file(
            root.path(),
            "etc/slurm/slurm.conf.bak",
            "Prolog=/usr/sbin/efa-check-prolog\n",
        );
        file(
            root.path(),
            "etc/pam.d/sshd",
            "session include /etc/slurm-efa.d # pam_slurm_logout.so\n",
        );
        assert_eq!(found(root.path(), &[]), Vec::<String>::new());
    }

    #[test]
    fn what_the_revert_takes_out_keeps_nothing() {
        let root = tempfile::tempdir().unwrap();
        let text = "Prolog=/etc/slurm-efa/prolog.d/* # slurm-efa\n";
        let path = file(root.path(), "etc/slurm/slurm.conf", text);
        let change = |after| Change {
            path: files::resolved(&path),
            before: Content::Text(text.to_owned()),
            after,
        };
        assert_eq!(found(root.path(), &[]).len(), 1);
        assert!(found(root.path(), &[change(Content::Nothing)]).is_empty());
        assert!(found(root.path(), &[change(Content::Text(String::new()))]).is_empty());
        let other = Content::Text("Epilog=/etc/slurm-efa/epilog.d/*\n".to_owned());
        assert_eq!(found(root.path(), &[change(other)]).len(), 1);
    }

    #[test]
    fn a_link_of_the_sites_in_a_folder_of_prologs_keeps_the_package() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("opt/slurm/etc/scripts/prolog.d");
        fs::create_dir_all(&folder).unwrap();
        // The package need not be there: the link alone would fail the prolog.
        let link = folder.join("50-efa-check-prolog");
        symlink("/usr/sbin/efa-check", &link).unwrap();
        let said = found(root.path(), &[]);
        assert!(
            said[0].contains("is a link to /usr/sbin/efa-check"),
            "{said:?}"
        );
        let gone = Change {
            path: link,
            before: Content::Link("/usr/sbin/efa-check".into()),
            after: Content::Nothing,
        };
        assert!(found(root.path(), &[gone]).is_empty());
    }
}
