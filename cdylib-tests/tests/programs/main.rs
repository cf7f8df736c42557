//! What holds for every program.

mod job_submit;
mod untrusted_paths;
