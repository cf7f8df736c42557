//! Command-line options that a plugin adds to srun, sbatch and salloc.

use std::ffi::{CStr, c_int};

use crate::bindings::{spank_opt_cb_f, spank_option};

/// Whether an option takes a value, as in getopt_long(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `--name`
    None,
    /// `--name=VALUE`
    Required,
    /// `--name` or `--name=VALUE`
    Optional,
}

/// One option, as `--help` shows it.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The long name, at most 75 bytes (`SPANK_OPTION_MAXLEN`).
    pub name: &'static CStr,
    /// One word for the value.
    pub value_name: Option<&'static CStr>,
    /// The help text.
    pub usage: &'static CStr,
    /// Whether it takes a value.
    pub argument: Argument,
}

impl OptionSpec {
    /// The C structure. Slurm copies it when it is registered and does not
    /// write through its pointers, which C declares without `const`.
    pub(crate) fn as_c(&self, index: usize, callback: spank_opt_cb_f) -> spank_option {
        spank_option {
            name: self.name.as_ptr().cast_mut(),
            arginfo: self
                .value_name
                .map_or(std::ptr::null_mut(), |name| name.as_ptr().cast_mut()),
            usage: self.usage.as_ptr().cast_mut(),
            has_arg: match self.argument {
                Argument::None => 0,
                Argument::Required => 1,
                Argument::Optional => 2,
            },
            val: c_int::try_from(index).unwrap_or(c_int::MAX),
            cb: callback,
        }
    }

    /// What Slurm hands over as the value, cleaned of its ways to say "none".
    ///
    /// A missing value arrives as a null pointer on the command line, as an
    /// empty string or the text `(null)` where it travelled in the environment
    /// (seen with 22.05: `setenv(…, "")` and `xstrfmtcat("%s", NULL)`).
    pub(crate) fn value<'a>(&self, raw: Option<&'a CStr>) -> OptionValue<'a> {
        let raw = raw.map(CStr::to_bytes);
        match self.argument {
            Argument::None => None,
            Argument::Required => raw,
            Argument::Optional => raw.filter(|bytes| !bytes.is_empty() && *bytes != b"(null)"),
        }
    }
}

/// The bytes of an option's value; `None` where none was given. Hostile: any
/// length, any byte but NUL.
pub type OptionValue<'a> = Option<&'a [u8]>;

/// Who processes the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// srun, sbatch or salloc, as the user: an error refuses the submission.
    Client,
    /// slurmstepd, as root: Slurm only logs an error and runs the job on.
    Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONAL: OptionSpec = OptionSpec {
        name: c"x",
        value_name: None,
        usage: c"x",
        argument: Argument::Optional,
    };

    #[test]
    fn every_way_that_slurm_says_no_value_is_no_value() {
        assert_eq!(OPTIONAL.value(None), None);
        assert_eq!(OPTIONAL.value(Some(c"")), None);
        assert_eq!(OPTIONAL.value(Some(c"(null)")), None);
        assert_eq!(OPTIONAL.value(Some(c"all")), Some(&b"all"[..]));
    }

    #[test]
    fn a_required_value_may_be_empty_so_that_the_plugin_can_refuse_it() {
        let required = OptionSpec {
            argument: Argument::Required,
            ..OPTIONAL
        };
        assert_eq!(required.value(Some(c"")), Some(&b""[..]));
    }
}
