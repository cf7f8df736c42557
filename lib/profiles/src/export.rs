//! `--export`: which of the client's variables reach the job.

use std::collections::BTreeMap;

/// What `--export` lets through to the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    all: bool,
    names: Vec<Vec<u8>>,
    assigned: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Export {
    /// Reads the value of `--export`, as sbatch(1) describes it: `ALL`, `NIL`,
    /// `NONE`, or a list of names and assignments.
    pub fn parse(value: &[u8]) -> Self {
        let mut export = Self {
            all: false,
            names: Vec::new(),
            assigned: BTreeMap::new(),
        };
        for word in value.split(|byte| *byte == b',') {
            match word.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    export
                        .assigned
                        .insert(word[..at].to_vec(), word[at + 1..].to_vec());
                }
                None if word.eq_ignore_ascii_case(b"ALL") => export.all = true,
                None => export.names.push(word.to_vec()),
            }
        }
        export
    }

    /// The variable as the job will have it.
    pub fn value(&self, name: &str, client: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        if let Some(value) = self.assigned.get(name.as_bytes()) {
            return Some(value.clone());
        }
        if self.all || self.names.iter().any(|listed| listed == name.as_bytes()) {
            client(name)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(export: &str, name: &str) -> Option<Vec<u8>> {
        Export::parse(export.as_bytes())
            .value(name, |name| (name == "A").then(|| b"client".to_vec()))
    }

    #[test]
    fn export_decides_which_of_the_clients_variables_the_job_has() {
        assert_eq!(through("ALL", "A"), Some(b"client".to_vec()));
        assert_eq!(through("NONE", "A"), None);
        assert_eq!(through("B,C=1", "A"), None);
        assert_eq!(through("B,A", "A"), Some(b"client".to_vec()));
        assert_eq!(through("ALL,A=own", "A"), Some(b"own".to_vec()));
        assert_eq!(through("A=", "A"), Some(Vec::new()));
        assert_eq!(through("NONE", "B"), None);
    }
}
