//! Users and groups, by the C library's NSS, as sshd itself does.

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr;

use host::{Gid, Uid};

/// Longest entry of a user that is taken, in bytes.
const LARGEST: usize = 1 << 20;

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: Uid,
    /// Main group.
    pub gid: Gid,
}

/// The account of this name; `None`: there is none.
///
/// # Errors
/// It could not be found out.
pub fn account(name: &str) -> Result<Option<Account>, String> {
    let found = look_up(name, |name, entry, buffer, found| {
        // SAFETY: all pointers are valid for the call, and the length is the
        // buffer's (getpwnam_r(3)).
        unsafe { libc::getpwnam_r(name, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    })?;
    Ok(found.map(|entry: libc::passwd| Account {
        uid: Uid(entry.pw_uid),
        gid: Gid(entry.pw_gid),
    }))
}

/// Calls one of the C library's `get…nam_r`, with more room as long as it asks
/// for that. Pointers in the entry are dead; its numbers are good.
fn look_up<T>(
    name: &str,
    call: impl Fn(*const c_char, *mut T, &mut [c_char], *mut *mut T) -> c_int,
) -> Result<Option<T>, String> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer: Vec<c_char> = vec![0; 4096];
    loop {
        let mut entry = MaybeUninit::<T>::uninit();
        let mut found = ptr::null_mut();
        let code = call(
            name.as_ptr(),
            entry.as_mut_ptr(),
            &mut buffer,
            &raw mut found,
        );
        match code {
            0 if found.is_null() => return Ok(None),
            // SAFETY: a result that is not null says that it is filled.
            0 => return Ok(Some(unsafe { entry.assume_init() })),
            libc::ERANGE if buffer.len() < LARGEST => buffer.resize(buffer.len() * 4, 0),
            // Some sources say so where there is none (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            code => return Err(std::io::Error::from_raw_os_error(code).to_string()),
        }
    }
}

/// Whether the user is in one of these groups. A group that does not exist
/// has no members.
#[must_use]
pub fn in_groups(name: &str, account: Account, wanted: &[String]) -> bool {
    let wanted: Vec<Gid> = wanted.iter().filter_map(|group| gid(group)).collect();
    !wanted.is_empty() && groups(name, account).iter().any(|gid| wanted.contains(gid))
}

/// All groups of a user.
fn groups(name: &str, account: Account) -> Vec<Gid> {
    let Ok(name) = CString::new(name) else {
        return Vec::new();
    };
    let mut list: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = i32::try_from(list.len()).unwrap_or(i32::MAX);
        // SAFETY: the list has room for `count` groups, which comes back as
        // their number (getgrouplist(3)).
        let code = unsafe {
            libc::getgrouplist(
                name.as_ptr(),
                account.gid.0,
                list.as_mut_ptr(),
                &raw mut count,
            )
        };
        let count = usize::try_from(count).unwrap_or(0);
        if code >= 0 {
            list.truncate(count);
            return list.into_iter().map(Gid).collect();
        }
        // Linux has at most 65536 groups for a process.
        if count <= list.len() || list.len() > 65_536 {
            return vec![account.gid];
        }
        list.resize(count, 0);
    }
}

fn gid(group: &str) -> Option<Gid> {
    let found = look_up(group, |name, entry, buffer, found| {
        // SAFETY: as in `account`, for getgrnam_r(3).
        unsafe { libc::getgrnam_r(name, entry, buffer.as_mut_ptr(), buffer.len(), found) }
    });
    found.ok()?.map(|entry: libc::group| Gid(entry.gr_gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_with_its_group_and_a_made_up_user_is_not() {
        let root = account("root").unwrap().unwrap();
        assert_eq!(root.uid, Uid::ROOT);
        assert!(in_groups(
            "root",
            root,
            &["nosuchgroup".to_owned(), "root".to_owned()]
        ));
        assert!(!in_groups("root", root, &["nosuchgroup".to_owned()]));
        assert_eq!(account("no such user").unwrap(), None);
        assert_eq!(account("a\0b").unwrap(), None);
    }
}
