#![no_main]
//! Instance types, as DMI or a user writes them.

use efa::{InstanceType, instance_types};
use libfuzzer_sys::fuzz_target;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    match text.parse::<InstanceType>() {
        Ok(instance) => {
            let name = instance.to_string();
            assert_presentable(&name);
            assert_eq!(text.strip_prefix("ml.").unwrap_or(text), name);
            assert!(name.starts_with(&format!("{}.", instance.family())));
            assert_eq!(name.parse().as_ref(), Ok(&instance));
            if let Some(spec) = instance_types::lookup(&instance) {
                assert_eq!(spec.name, name);
            }
        }
        Err(error) => assert_presentable(&error.to_string()),
    }
});
