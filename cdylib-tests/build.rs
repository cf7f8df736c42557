//! Linker flags of `bench`, which plays Slurm to a plugin: its functions must
//! be found by dlsym(3).

fn main() {
    println!("cargo::rustc-link-arg-bin=bench=-rdynamic");
    println!("cargo::rerun-if-changed=build.rs");
}
