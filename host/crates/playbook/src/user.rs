//! The user that playbooks run as.

use std::ffi::CString;
use std::path::PathBuf;

use loopabull_launcher::User;
use nix::errno::Errno;

use crate::error::PlaybookError;

/// A user with its supplementary groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PlaybookUser {
    pub(crate) ids: User,
    /// The home directory. `None` for a user that is named by numbers.
    pub(crate) home: Option<PathBuf>,
    /// The groups besides the user's own. Empty for a user that is named by numbers.
    pub(crate) groups: Vec<u32>,
}

/// Returns the user for a name, or for a text in the form `UID:GID`. Names are looked up through the name
/// services of the machine (nsswitch.conf(5)), so that users from LDAP and sssd are found too.
pub(crate) fn find(name: &str) -> Result<PlaybookUser, PlaybookError> {
    let unknown = || PlaybookError::NoUser { name: name.to_owned() };
    if let Some((uid, gid)) = name.split_once(':') {
        let ids = uid.parse().ok().zip(gid.parse().ok());
        let (uid, gid) = ids.ok_or_else(unknown)?;
        return Ok(PlaybookUser { ids: User { uid, gid }, home: None, groups: Vec::new() });
    }
    let lookup =
        |error: Errno| PlaybookError::UserLookup { name: name.to_owned(), source: error.into() };
    let user = match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => user,
        // Some name services return ENOENT or ESRCH for a user that does not exist (getpwnam(3)).
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => return Err(unknown()),
        Err(error) => return Err(lookup(error)),
    };
    let c_name = CString::new(name).map_err(|_| unknown())?;
    let groups = nix::unistd::getgrouplist(&c_name, user.gid).map_err(lookup)?;
    let groups = groups.into_iter().filter(|group| *group != user.gid).map(|group| group.as_raw());
    let ids = User { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    Ok(PlaybookUser { ids, home: Some(user.dir), groups: groups.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        assert_eq!(find("root").unwrap().ids, User { uid: 0, gid: 0 });
        let ids = User { uid: 12, gid: 34 };
        let numbers = PlaybookUser { ids, home: None, groups: Vec::new() };
        assert_eq!(find("12:34").unwrap(), numbers);
        for name in ["no-such-user", "12:x", "a\0b", ""] {
            let error = find(name).unwrap_err().to_string();
            let expected = format!("`{name}` under `[playbook]` is not a user of this machine");
            assert_eq!(error, expected);
        }
    }
}
