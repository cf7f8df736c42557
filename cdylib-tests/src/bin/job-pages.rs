//! What a prolog and an epilog do with hugepages, and nothing else, so that a
//! test can kill it anywhere: `job-pages prolog STATE SPOOL JOB PAGES`,
//! `job-pages epilog STATE SPOOL JOB`.

use std::path::Path;
use std::process::ExitCode;

use cdylib_tests::pages::{self, PAGE};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("job-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match *arguments {
        ["prolog", state, spool, job, wanted] => {
            let wanted = wanted.parse()?;
            let (state, spool) = (Path::new(state), Path::new(spool));
            let report = pages::prolog(state, spool, job.parse()?, wanted)?;
            let got = report.claimed.map_or(0, |entry| entry.total(PAGE).0);
            match got == wanted {
                true => Ok(()),
                false => Err(format!("{got} pages instead of {wanted}").into()),
            }
        }
        ["epilog", state, spool, job] => {
            pages::epilog(Path::new(state), Path::new(spool), job.parse()?)?;
            Ok(())
        }
        _ => Err("usage: prolog STATE SPOOL JOB PAGES | epilog STATE SPOOL JOB".into()),
    }
}
