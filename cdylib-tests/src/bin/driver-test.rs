//! The kernel's own efa driver on emulated devices; see `make driver-test`.

use std::process::ExitCode;

use cdylib_tests::driver_test::{in_own_namespaces, run};
use clap::Parser;

/// Run efa-check, the plugin and libfabric on the kernel's own efa driver, in
/// guests whose EFA devices are emulated (QEMU, no KVM needed).
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 fine, 1 a scene failed, 77 nothing to play on."
)]
struct Arguments {
    /// Only the scenes whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Set for the program in its own namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

/// There is nothing to play on: no root, no QEMU, no driver. Never green.
const NOTHING_TO_PLAY_ON: u8 = 77;

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn main() -> ExitCode {
    let Arguments { only, inside } = Arguments::parse();
    let outcome = if inside {
        run(only.as_deref()).map(|fine| if fine { 0 } else { 1 })
    } else if !is_root() {
        Err("guests, mounts and namespaces need root's rights".into())
    } else {
        let own = std::env::args_os().skip(1);
        let arguments: Vec<_> = own.chain(["--inside".into()]).collect();
        in_own_namespaces(&arguments)
            .map(|status| {
                status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .unwrap_or(1)
            })
            .map_err(Into::into)
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("driver-test: {error}");
            ExitCode::from(NOTHING_TO_PLAY_ON)
        }
    }
}
