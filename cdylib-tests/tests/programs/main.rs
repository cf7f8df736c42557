//! What holds for every program.

mod untrusted_paths;
