//! Linker flags of the shared object.

fn main() {
    // Rust's std registers thread-local destructors; a host that unloads the
    // object would run them after the code is gone.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
