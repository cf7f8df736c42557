//! What one look found, and the remedies that several name.

use std::path::Path;

use findings::Severity;
use host::printable;

/// What one look found.
pub(super) type Look = Result<String, (Severity, String, String)>;

pub(super) fn fatal(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Fatal, evidence.into(), remedy.into()))
}

pub(super) fn warning(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Warning, evidence.into(), remedy.into()))
}

pub(super) fn unknown(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Unknown, evidence.into(), remedy.into()))
}

pub(super) const SETUP: &str = "run `slurm-efa setup` here";
pub(super) const SETUP_CONTROLLER: &str = "run `slurm-efa setup` on the controller";

pub(super) const REINSTALL: &str = "install the package slurm-efa again";

pub(super) fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 300)
}
