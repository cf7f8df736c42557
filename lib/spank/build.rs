//! Linker flags of the example plugins: see spank-efa's build script. Cargo has
//! no key for examples that are shared objects, so everything gets them.

fn main() {
    println!("cargo::rustc-link-arg=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
