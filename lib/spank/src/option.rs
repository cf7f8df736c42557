//! Command-line options that a plugin adds to srun, sbatch and salloc.

use std::ffi::{CStr, c_char, c_int};

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

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// srun, sbatch or salloc, as the user: a command line or an `#SBATCH`
    /// line. An error refuses the submission.
    Client,
    /// The same programs: the variable `SLURM_SPANK_…` of the client's
    /// environment. The job around the client left it there, or Slurm itself
    /// did, after an earlier component of the same heterogeneous job.
    Environment,
    /// slurmstepd, as root: Slurm only logs an error and runs the job on.
    Node,
}

unsafe extern "C" {
    /// environ(7).
    static environ: *const *const c_char;
}

/// Whether Slurm read a value out of this process's environment.
///
/// `spank_process_env_options` hands the callback the very pointer that
/// getenv(3) returned, in every release from 20.11 to 26.05. Every other value
/// lies in `argv` or in memory of Slurm's own. So the address decides, and two
/// equal texts cannot be mistaken for one another.
///
/// # Safety
/// No other thread changes the environment meanwhile.
pub(crate) unsafe fn lies_in_environment(value: *const c_char) -> bool {
    // SAFETY: the C library defines `environ`; nobody writes it meanwhile.
    let mut place = unsafe { environ };
    if place.is_null() || value.is_null() {
        return false;
    }
    loop {
        // SAFETY: `environ` is an array of pointers that ends with a null
        // pointer, and `place` has not passed it.
        let entry = unsafe { place.read() };
        if entry.is_null() {
            return false;
        }
        // SAFETY: each entry is a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
        if text
            .iter()
            .position(|byte| *byte == b'=')
            .is_some_and(|at| entry.wrapping_add(at + 1) == value)
        {
            return true;
        }
        // SAFETY: the entry was not the null pointer at the end.
        place = unsafe { place.add(1) };
    }
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

    #[test]
    fn a_value_is_the_environments_by_its_address_and_not_by_its_text() {
        // SAFETY: getenv(3) takes a NUL-terminated name; no test of this crate
        // changes the environment.
        let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
        assert!(!path.is_null(), "the test needs PATH");
        // SAFETY: getenv(3) returned a NUL-terminated string.
        let copy = unsafe { CStr::from_ptr(path) }.to_owned();
        // SAFETY: no test of this crate changes the environment.
        let found = |value| unsafe { lies_in_environment(value) };
        assert!(found(path));
        assert!(!found(copy.as_ptr()));
        assert!(!found(std::ptr::null()));
    }
}
