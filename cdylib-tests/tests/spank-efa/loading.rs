//! How the plugin is loaded: what it exports and asks for, by which path, in
//! whose company, and by whom it is refused.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdylib_tests::efa_cluster::{self, Vars};
use cdylib_tests::modules;
use cdylib_tests::testbed::Testbed;
use object::elf::{DF_1_NODELETE, DT_FLAGS_1, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, Object, ObjectSymbol};

/// Everything that the plugin shows to Slurm.
const EXPORTS: [&str; 9] = [
    "plugin_name",
    "plugin_type",
    "plugin_version",
    "slurm_spank_init",
    "slurm_spank_init_post_opt",
    "slurm_spank_task_exit",
    "slurm_spank_task_init",
    "slurm_spank_task_init_privileged",
    "slurm_spank_user_init",
];

/// `cargo xtask dist` holds the files that are shipped to the same.
fn builds() -> [PathBuf; 2] {
    [modules::plugin(), modules::injected()]
}

/// The names of an object's dynamic symbols that `wanted` accepts.
fn symbols(
    data: &[u8],
    wanted: impl Fn(&object::read::elf::ElfSymbol<'_, '_, FileHeader64<Endianness>>) -> bool,
) -> BTreeSet<String> {
    let elf = ElfFile64::<Endianness>::parse(data).unwrap();
    elf.dynamic_symbols()
        .filter(|symbol| wanted(symbol))
        .map(|symbol| symbol.name().unwrap().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn the_plugin_exports_its_three_names_and_the_hooks_it_has_and_nothing_else() {
    for path in builds() {
        let data = fs::read(&path).unwrap();
        let defined = symbols(&data, |symbol| symbol.is_definition());
        assert_eq!(defined, EXPORTS.map(str::to_owned).into(), "{path:?}");
    }
}

#[test]
fn no_program_carries_the_symbols_of_a_plugin_or_a_pam_module() {
    let programs = [
        "efa-check",
        "gres-helper",
        "slurm-efa",
        "slurm-logout",
        "slurm-logoutd",
    ];
    for program in programs {
        let data = fs::read(modules::program(program)).unwrap();
        let elf = ElfFile64::<Endianness>::parse(&*data).unwrap();
        let names: Vec<&str> = elf.symbols().filter_map(|it| it.name().ok()).collect();
        assert!(
            names.len() > 1000,
            "{program}: it has no symbols to look at"
        );
        for name in names {
            let exported = name == "plugin_version"
                || name.starts_with("slurm_spank_")
                || name.starts_with("pam_sm_");
            assert!(!exported, "{program}: {name}");
        }
    }
}

#[test]
fn the_plugin_links_nothing_of_slurm() {
    for path in builds() {
        let data = fs::read(&path).unwrap();
        let undefined = symbols(&data, |symbol| symbol.is_undefined());
        let slurm = |name: &&String| name.starts_with("spank_") || name.starts_with("slurm");
        assert_eq!(undefined.iter().find(slurm), None, "{path:?}");
        assert!(undefined.contains("dlsym"), "{path:?}: {undefined:?}");
    }
}

#[test]
fn the_plugin_stays_mapped_when_slurm_closes_it() {
    for path in builds()
        .into_iter()
        .chain([modules::example("second_plugin")])
    {
        let data = fs::read(&path).unwrap();
        let header = FileHeader64::<Endianness>::parse(&*data).unwrap();
        let endian = header.endian().unwrap();
        let sections = header.sections(endian, &*data).unwrap();
        let (entries, _) = sections.dynamic(endian, &*data).unwrap().unwrap();
        let nodelete = entries.iter().any(|entry| {
            entry.tag(endian) == DT_FLAGS_1 && entry.val(endian) & DF_1_NODELETE.0 != 0
        });
        assert!(nodelete, "{path:?}");
    }
}

/// An object that this test has opened, as Slurm opens plugins.
struct Loaded(*mut c_void);

impl Loaded {
    fn open(path: &Path) -> Loaded {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: dlopen(3) takes a NUL-terminated path; the object's
        // constructor has no preconditions.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
        assert!(!handle.is_null(), "{path:?} cannot be loaded");
        Loaded(handle)
    }

    fn symbol<T>(&self, name: &CStr) -> *const T {
        // SAFETY: the handle is open and the name NUL-terminated: dlsym(3).
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?} is missing");
        address.cast()
    }

    fn close(self) {
        // SAFETY: the handle came from dlopen and is closed once.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

#[test]
fn outside_slurm_the_plugin_loads_twice_names_itself_and_claims_no_release() {
    for _ in 0..2 {
        let plugin = Loaded::open(&modules::plugin());
        // SAFETY: `plugin_name` is a NUL-terminated array of characters.
        let name = unsafe { CStr::from_ptr(plugin.symbol(c"plugin_name")) };
        assert_eq!(name, c"spank_efa");
        // SAFETY: as above, of `plugin_type`.
        let kind = unsafe { CStr::from_ptr(plugin.symbol(c"plugin_type")) };
        assert_eq!(kind, c"spank");
        // SAFETY: `plugin_version` is four bytes, written only by the
        // constructor, which dlopen has already run.
        let version = unsafe { plugin.symbol::<u32>(c"plugin_version").read() };
        assert_eq!(version, 0);
        plugin.close();
    }
}

/// A p5 with a configuration and these lines in plugstack.conf.
fn cluster(lines: &[String]) -> Testbed {
    let builder =
        efa_cluster::bare(&["p5.48xlarge"]).file(efa_cluster::CONFIG, efa_cluster::SYSROOTS);
    lines
        .iter()
        .fold(builder, |builder, line| builder.plugstack(line))
        .start()
        .unwrap()
}

/// What a step and a batch job with these options have of these variables.
fn assert_served(tb: &Testbed, options: &[&str], wanted: &[(&str, &str)]) {
    let step = efa_cluster::step(tb, &[], &[options, &["env"]].concat()).stdout;
    let batch = efa_cluster::batch(tb, options, "env");
    for seen in [step, batch] {
        let vars = Vars::of(&seen);
        for (name, value) in wanted {
            assert_eq!(vars.get(name), Some(*value), "{seen}");
        }
    }
}

#[test]
fn two_plugins_side_by_side_serve_each_its_own_option_in_either_order() {
    let ours = |requirement| efa_cluster::plugstack_line(requirement, &modules::plugin());
    let second = modules::example("second_plugin");
    let theirs = |requirement| format!("{requirement} {}", second.display());
    for lines in [
        [ours("required"), theirs("required")],
        [theirs("optional"), ours("optional")],
    ] {
        let tb = cluster(&lines);
        assert_served(
            &tb,
            &["--efa-profile=p5", "--second=word"],
            &[("SLURM_EFA_PROFILE", "p5"), ("SECOND_PLUGIN", "word")],
        );
        let alone = efa_cluster::step(&tb, &[], &["--second=word", "env"]).stdout;
        assert_eq!(Vars::of(&alone).get("SLURM_EFA_PROFILE"), None, "{alone}");
    }
}

#[test]
fn a_required_and_an_optional_plugin_serve_alike() {
    for requirement in ["required", "optional"] {
        let tb = cluster(&[efa_cluster::plugstack_line(requirement, &modules::plugin())]);
        assert_served(&tb, &["--efa-profile=p5"], &[("SLURM_EFA_PROFILE", "p5")]);
    }
}

#[test]
fn a_relative_path_is_found_in_plugin_dir_and_serves() {
    // Debian's own directory first.
    let debian = format!("/usr/lib/{}-linux-gnu/slurm-wlm", std::env::consts::ARCH);
    let tb = efa_cluster::bare(&["p5.48xlarge"])
        .file(efa_cluster::CONFIG, efa_cluster::SYSROOTS)
        .slurm_conf_extra(&format!("PluginDir={debian}:{{dir}}/plugins"))
        .prepare(|dir| {
            fs::create_dir(dir.join("plugins"))?;
            fs::copy(modules::plugin(), dir.join("plugins/spank_efa.so")).map(drop)
        })
        .plugstack(&efa_cluster::plugstack_line(
            "required",
            Path::new("spank_efa.so"),
        ))
        .start()
        .unwrap();
    assert_served(&tb, &["--efa-profile=p5"], &[("SLURM_EFA_PROFILE", "p5")]);
}

#[test]
fn slurm_itself_refuses_the_plugin_in_a_release_that_is_not_known() {
    let preload = |tb: &Testbed| {
        tb.command("alice", &["srun", "--efa-profile=p5", "true"])
            .env("LD_PRELOAD", modules::example("unknown_libslurm"))
            .output()
            .unwrap()
    };
    let tb = cluster(&[efa_cluster::plugstack_line("required", &modules::plugin())]);
    let refused = preload(&tb);
    assert!(!refused.success(), "{refused}");
    assert!(refused.stderr.contains("ncompatible"), "{refused}");
    assert_eq!(tb.queue_len().unwrap(), 0);
    assert_served(&tb, &["--efa-profile=p5"], &[("SLURM_EFA_PROFILE", "p5")]);
}
