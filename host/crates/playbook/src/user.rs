//! The user that playbooks run as.

use loopabull_launcher::User;
use nix::errno::Errno;

use crate::error::PlaybookError;

/// Returns the user for a name, or for a text in the form `UID:GID`. Names are looked up through the name
/// services of the machine (nsswitch.conf(5)), so that users from LDAP and sssd are found too.
pub(crate) fn find(name: &str) -> Result<User, PlaybookError> {
    let unknown = || PlaybookError::NoUser { name: name.to_owned() };
    if let Some((uid, gid)) = name.split_once(':') {
        let ids = uid.parse().ok().zip(gid.parse().ok());
        return ids.map(|(uid, gid)| User { uid, gid }).ok_or_else(unknown);
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        // Some name services return ENOENT or ESRCH for a user that does not exist (getpwnam(3)).
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => Err(unknown()),
        Err(error) => {
            Err(PlaybookError::UserLookup { name: name.to_owned(), source: error.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_or_two_numbers() {
        assert_eq!(find("root").unwrap(), User { uid: 0, gid: 0 });
        assert_eq!(find("12:34").unwrap(), User { uid: 12, gid: 34 });
        for name in ["no-such-user", "12:x", "a\0b", ""] {
            let error = find(name).unwrap_err().to_string();
            let expected = format!("`{name}` under `[playbook]` is not a user of this machine");
            assert_eq!(error, expected);
        }
    }
}
