#![no_main]
//! slurm-efa.toml: what is accepted is usable, what is refused is explained.

use std::path::Path;

use config::Config;
use config::ConfigError;
use efa::InstanceType;
use libfuzzer_sys::fuzz_target;
use profiles::profile;
use profiles::request::ProfileName;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    match config::parse(text, Path::new("/etc/slurm-efa/slurm-efa.toml")) {
        Ok(config) => accepted(&config),
        Err(error) => {
            assert_presentable(&error.to_string());
            let ConfigError::Invalid { line, column, .. } = error else {
                panic!("text cannot have {error:?}");
            };
            assert!((1..=text.split('\n').count()).contains(&line));
            assert!(column >= 1);
        }
    }
});

fn accepted(config: &Config) {
    let node = "n1".parse().ok();
    let sysroot = config.sysroot(node.as_ref()).expect("%n is known");
    assert!(sysroot.path("x").is_absolute());
    assert!(
        config
            .state_dir(node.as_ref())
            .expect("%n is known")
            .is_absolute()
    );
    for section in ["hugepages", "health", "logout", "gres", "report"] {
        if let Err(error) = config.section::<toml::Table>(section) {
            panic!("a table is no table: {error}");
        }
    }
    // A cycle of bases or an unknown one is refused as a whole.
    if let Err(error) = profile::check(config) {
        assert_presentable(&error.to_string());
        return;
    }
    for name in config.profiles.keys() {
        let name = ProfileName::new(name).expect("a profile's name can be asked for");
        // `ml.` in front of a name means the name without it.
        if config.profiles.contains_key(name.as_str()) {
            profile::resolve(&name, config).expect("checked above");
        }
    }
    let instance: Option<InstanceType> = "p5.48xlarge".parse().ok();
    profile::for_node(instance.as_ref(), config).expect("checked above");
}
