#![no_main]
//! mig-parted's file: any text is a configuration or a message.

use gres_helper::mig::spec;
use libfuzzer_sys::fuzz_target;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| match spec::parse(text) {
    Ok(spec) => {
        assert_eq!(spec.version, "v1");
        for rule in spec.configs.values().flatten() {
            let _ = rule.is_about(0, 0x2330_10de);
        }
    }
    Err(reason) => assert_presentable(&reason),
});
