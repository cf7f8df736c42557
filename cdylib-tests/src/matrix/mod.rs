//! The matrix: the very files that are shipped, under every supported Slurm
//! release, each a Debian root with its own munge, slurmctld and slurmd.
//!
//! A behaviour is one line of [`rows::ROWS`]; a release is one line of xtask's
//! table (`cargo xtask roots --list`).

mod context;
mod rows;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use crate::modules;
use context::{Context, Release, Row, xtask};
use rows::ROWS;

/// Which part of the matrix is run; all of it by default.
#[derive(Debug, Default)]
pub struct Selection {
    /// This release, e.g. `22.05`.
    pub release: Option<String>,
    /// Rows whose name contains this.
    pub row: Option<String>,
}

/// One cell: why the behaviour was not shown, or nothing.
type Cell = Result<(), String>;

/// Runs the matrix, printing as it goes; true when every cell is fine.
///
/// # Errors
/// When there is nothing to run, with what there is.
pub fn run(selection: &Selection) -> Result<bool, Box<dyn Error>> {
    let all = releases()?;
    let releases: Vec<&Release> = all
        .iter()
        .filter(|release| {
            selection
                .release
                .as_ref()
                .is_none_or(|only| *only == release.slurm)
        })
        .collect();
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| {
            selection
                .row
                .as_ref()
                .is_none_or(|part| row.name.contains(part))
        })
        .collect();
    if releases.is_empty() || rows.is_empty() {
        let releases: Vec<&str> = all.iter().map(|release| release.slurm.as_str()).collect();
        let rows: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!(
            "nothing to run; the releases are {}; the rows are:\n{}",
            releases.join(", "),
            rows.join("\n")
        )
        .into());
    }
    // A panic that says what is not built.
    guarded(|| {
        modules::shipped_file("efa-check");
        Ok((modules::shipped(), modules::shipped_injected()))
    })?;
    // One column for each release.
    let columns: Vec<Vec<Cell>> = releases
        .iter()
        .map(|release| column(release, &rows))
        .collect();
    print_failures(&releases, &rows, &columns);
    print_table(&releases, &rows, &columns);
    let cells = || columns.iter().flatten();
    let failed = cells().filter(|cell| cell.is_err()).count();
    print_reasons(&releases, &rows, &columns);
    println!("\n{} passed, {failed} failed", cells().count() - failed);
    Ok(failed == 0)
}

/// The table of releases, which is xtask's.
fn releases() -> Result<Vec<Release>, Box<dyn Error>> {
    roots(&[])
}

/// The one of xtask's roots that has this name, and its Slurm.
pub(crate) fn root(name: &str) -> Result<(String, PathBuf), Box<dyn Error>> {
    let root = roots(&[name])?.pop().ok_or("no such root")?;
    Ok((root.slurm, root.root))
}

fn roots(names: &[&str]) -> Result<Vec<Release>, Box<dyn Error>> {
    let output = xtask(&["roots", "--list"]).args(names).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let release = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (slurm, _name, root) = (words.next()?, words.next()?, words.next()?);
        Some(Release {
            slurm: slurm.to_owned(),
            root: PathBuf::from(root),
        })
    };
    text.lines()
        .map(|line| {
            release(line).ok_or_else(|| format!("not a line of roots --list: {line}").into())
        })
        .collect()
}

fn column(release: &Release, rows: &[&Row]) -> Vec<Cell> {
    let slurm = &release.slurm;
    let context = match guarded(|| Context::new(release)) {
        Ok(context) => context,
        Err(reason) => {
            println!("{slurm}  the cluster does not start: {reason}");
            return vec![Err("the cluster does not start, see above".to_owned()); rows.len()];
        }
    };
    println!("{slurm}  runs, as {}", context.tb.release());
    rows.iter()
        .map(|row| {
            let started = Instant::now();
            let cell = guarded(|| {
                // What the row before left behind must not be taken for this one's.
                context
                    .tb
                    .wait_idle()
                    .inspect_err(|_| context.end_all_jobs())?;
                (row.check)(&context)
            });
            let word = if cell.is_ok() { "ok" } else { "FAILED" };
            let seconds = started.elapsed().as_secs_f64();
            println!("{slurm}  {}: {word} ({seconds:.1} s)", row.name);
            cell
        })
        .collect()
}

/// A row that panics has failed, with the panic's words.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, Box<dyn Error>>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(payload) => Err(payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            })
            .unwrap_or_else(|| "it panicked".to_owned())),
    }
}

fn print_failures(releases: &[&Release], rows: &[&Row], columns: &[Vec<Cell>]) {
    for (release, column) in releases.iter().zip(columns) {
        for (row, cell) in rows.iter().zip(column) {
            if let Err(reason) = cell {
                println!("\n==== {}, {}\n{reason}", release.slurm, row.name);
            }
        }
    }
}

/// The first line of each failure below the table: a log that is cut keeps its
/// end.
fn print_reasons(releases: &[&Release], rows: &[&Row], columns: &[Vec<Cell>]) {
    println!();
    for (release, column) in releases.iter().zip(columns) {
        for (row, cell) in rows.iter().zip(column) {
            if let Err(reason) = cell {
                let first: String = reason
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .take(300)
                    .collect();
                println!("{}, {}: {first}", release.slurm, row.name);
            }
        }
    }
}

fn print_table(releases: &[&Release], rows: &[&Row], columns: &[Vec<Cell>]) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    print!("\n{:width$}", "");
    for release in releases {
        print!("  {:>7}", release.slurm);
    }
    println!();
    for (index, row) in rows.iter().enumerate() {
        print!("{:width$}", row.name);
        for column in columns {
            let ok = column.get(index).is_some_and(Result::is_ok);
            print!("  {:>7}", if ok { "ok" } else { "FAILED" });
        }
        println!();
    }
}
