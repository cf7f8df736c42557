//! The variables by which a job's options reach the prolog and the epilog: Slurm
//! hands them on from the client, with `SPANK_` in front. A user can forge them.
//!
//! Slurm keeps one for each option of a plugin. But where any plugin of the site
//! has a SPANK prolog or epilog, slurmd removes some of those before it runs
//! Prolog= and Epilog= (seen with 20.11 to 26.05), so the client sets its own, too.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// An option that prolog and epilog need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobOption {
    /// The client's own variable, as SPANK's job control calls it.
    pub own: &'static str,
    /// Slurm's.
    slurms: &'static str,
}

/// `--efa-profile`.
pub const PROFILE: JobOption = JobOption {
    own: "EFA_PROFILE",
    slurms: "_SLURM_SPANK_OPTION_spank_efa_efa_profile",
};

/// `--efa-hugepages`.
pub const HUGEPAGES: JobOption = JobOption {
    own: "EFA_HUGEPAGES",
    slurms: "_SLURM_SPANK_OPTION_spank_efa_efa_hugepages",
};

impl JobOption {
    /// Its value in the environment of a prolog or an epilog, which `env` looks up.
    /// The client's own decides; an empty one says that the option was not given.
    #[must_use]
    pub fn value(&self, env: impl Fn(&str) -> Option<OsString>) -> Option<Vec<u8>> {
        let found = [self.own, self.slurms]
            .iter()
            .find_map(|name| env(&format!("SPANK_{name}")));
        found.map(OsString::into_vec).filter(|it| !it.is_empty())
    }

    /// The client's own variable as a job inherits it from the job around it.
    #[must_use]
    pub fn inherited(&self) -> String {
        format!("SLURM_SPANK_{}", self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variables: &[(&str, &str)]) -> Option<Vec<u8>> {
        HUGEPAGES.value(|name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn an_option_whose_variable_slurm_removed_is_known_by_the_clients_own() {
        assert_eq!(
            value(&[("SPANK_EFA_HUGEPAGES", "1G")]),
            Some(b"1G".to_vec())
        );
    }

    #[test]
    fn a_component_without_the_option_has_not_that_of_the_one_before() {
        let slurms = "SPANK__SLURM_SPANK_OPTION_spank_efa_efa_hugepages";
        assert_eq!(value(&[("SPANK_EFA_HUGEPAGES", ""), (slurms, "2G")]), None);
    }

    #[test]
    fn an_option_of_a_client_of_the_last_release_is_known_by_slurms_variable() {
        let slurms = "SPANK__SLURM_SPANK_OPTION_spank_efa_efa_hugepages";
        assert_eq!(value(&[(slurms, "2G")]), Some(b"2G".to_vec()));
        assert_eq!(value(&[]), None);
    }
}
