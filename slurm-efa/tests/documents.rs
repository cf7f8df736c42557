//! Every call in the documents is one that the program accepts.

use std::path::Path;

use cdylib_tests::documents::assert_accepted;

#[test]
fn the_program_accepts_every_call_in_the_documents() {
    assert_accepted(Path::new(env!("CARGO_BIN_EXE_slurm-efa")), 40);
}
