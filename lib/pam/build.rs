//! An empty libpam to link against, as libpam0g-dev and its like would bring
//! one: a node has libpam, but the machine that builds has none for each target.
//!
//! The linker wants the names of the functions only. What it notes is
//! `NEEDED libpam.so.0`, which the host has loaded before it loads the module.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Those that `pam-bindings` and this crate call.
const FUNCTIONS: &[&str] = &[
    "pam_get_data",
    "pam_get_item",
    "pam_get_user",
    "pam_putenv",
    "pam_set_data",
    "pam_set_item",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let source = folder.join("libpam.rs");
    fs::write(&source, stub()?)?;
    // rustc itself, since it knows how to link for every target that this crate
    // is built for: no C compiler is asked for.
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("no RUSTC")?);
    rustc
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=pam"])
        .args(["-Cpanic=abort", "-Copt-level=s", "-Cstrip=symbols"])
        .arg("-Clink-arg=-Wl,-soname,libpam.so.0")
        .arg("--target")
        .arg(env::var("TARGET")?)
        .arg("--out-dir")
        .arg(&folder)
        .arg(&source);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("-Clinker=");
        flag.push(linker);
        rustc.arg(flag);
    }
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("the libpam to link against was not made: {rustc:?}: {status}").into());
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}

fn stub() -> Result<String, std::fmt::Error> {
    let mut source = "#![no_std]\n\
        #[panic_handler]\n\
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }\n"
        .to_owned();
    for function in FUNCTIONS {
        writeln!(
            source,
            "#[unsafe(no_mangle)] pub extern \"C\" fn {function}() {{}}"
        )?;
    }
    Ok(source)
}
