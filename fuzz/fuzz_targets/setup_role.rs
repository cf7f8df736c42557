#![no_main]
//! HyperPod's files: a role or an error, whatever they hold.

use cluster::own_role::{from_node_info, from_resource_config};
use libfuzzer_sys::fuzz_target;

const PROVISIONING: &str = r#"{"controller_group": "head", "login_group": "login"}"#;

fuzz_target!(|text: &str| {
    let _ = from_node_info(text);
    let _ = from_resource_config(text, Some(PROVISIONING), |address| address.is_ipv6());
    let _ = from_resource_config(text, None, |address| address.is_ipv4());
    let _ = from_resource_config(r#"{"InstanceGroups": []}"#, Some(text), |_| true);
});
