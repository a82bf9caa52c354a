//! Reads the secrets of a task when the task is loaded.
//!
//! A manifest names each secret and its source: a file, an environment variable or a systemd
//! credential. Only the runners of tasks receive the values. No error, log line or recorded run
//! contains them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use loopabull_model::{Mask, SecretSource};

/// Maximum size of a secret in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Environment variable with the path of the directory in which systemd stores the credentials of a
/// service (systemd.exec(5), `LoadCredential=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The reason why a secret cannot be read. No error contains the value of the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("cannot read the secret `{name}` from `{path}`")]
    Read { name: String, path: PathBuf, source: std::io::Error },
    #[error("the secret `{name}` has more than {MAX_BYTES} bytes")]
    TooLarge { name: String },
    #[error("the secret `{name}` is not UTF-8")]
    NotText { name: String },
    #[error(
        "the secret `{name}` has fewer than {shortest} bytes, which is too short to be masked",
        shortest = Mask::MIN_BYTES
    )]
    TooShort { name: String },
    #[error("the environment variable `{variable}` for secret `{name}` is not set")]
    NoVariable { name: String, variable: String },
    #[error("the secret `{name}` is a credential, but systemd passed no credentials")]
    NoCredentials { name: String },
    #[error("`{credential}` is not a valid credential name for secret `{name}`")]
    BadCredential { name: String, credential: String },
}

/// Reads the values of secrets.
pub(crate) fn read(
    sources: &BTreeMap<String, SecretSource>,
) -> Result<BTreeMap<String, String>, SecretError> {
    sources.iter().map(|(name, source)| Ok((name.clone(), read_one(name, source)?))).collect()
}

/// Returns the path of a secret's file, or none if the secret does not come from a file.
pub(crate) fn path(source: &SecretSource) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(path.clone()),
        SecretSource::Env(_) => None,
        SecretSource::Credential(name) => {
            Some(Path::new(&std::env::var_os(CREDENTIALS)?).join(name))
        }
    }
}

fn read_one(name: &str, source: &SecretSource) -> Result<String, SecretError> {
    let name = || name.to_owned();
    let value = match source {
        SecretSource::File(path) => read_file(&name(), path)?,
        SecretSource::Env(variable) => std::env::var(variable)
            .map_err(|_| SecretError::NoVariable { name: name(), variable: variable.clone() })?,
        SecretSource::Credential(credential) => {
            if credential.contains('/') || credential.starts_with('.') {
                let credential = credential.escape_debug().to_string();
                return Err(SecretError::BadCredential { name: name(), credential });
            }
            let folder = std::env::var_os(CREDENTIALS)
                .ok_or_else(|| SecretError::NoCredentials { name: name() })?;
            read_file(&name(), &Path::new(&folder).join(credential))?
        }
    };
    if value.len() < Mask::MIN_BYTES {
        return Err(SecretError::TooShort { name: name() });
    }
    Ok(value)
}

fn read_file(name: &str, path: &Path) -> Result<String, SecretError> {
    let name = || name.to_owned();
    let mut bytes = Vec::new();
    std::fs::metadata(path)
        .and_then(|metadata| match metadata.is_file() {
            // Opening a named pipe would block, so only regular files are opened.
            false => Err(std::io::Error::other("not a regular file")),
            true => File::open(path),
        })
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| SecretError::Read { name: name(), path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(SecretError::TooLarge { name: name() });
    }
    let text = String::from_utf8(bytes).map_err(|_| SecretError::NotText { name: name() })?;
    Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, SecretSource) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let source = SecretSource::File(file.path().to_owned());
        (file, source)
    }

    #[test]
    fn the_newline_at_the_end_of_a_file_is_not_part_of_the_secret() {
        let (_file, source) = file("hunter22\n");
        assert_eq!(read_one("a", &source).unwrap(), "hunter22");
    }

    #[test]
    fn a_secret_too_short_to_be_masked_is_refused() {
        let (_file, source) = file("abc\n");
        let error = read_one("a", &source).unwrap_err().to_string();
        assert_eq!(error, "the secret `a` has fewer than 6 bytes, which is too short to be masked");
    }

    #[test]
    fn an_error_names_the_missing_source() {
        let error = |source| read_one("a", &source).unwrap_err().to_string();
        let variable = SecretSource::Env("LOOPABULL_NO_SUCH_VARIABLE".into());
        assert!(
            error(variable)
                .contains("variable `LOOPABULL_NO_SUCH_VARIABLE` for secret `a` is not set")
        );
        assert!(error(SecretSource::File("/no/such".into())).ends_with("from `/no/such`"));
        assert!(
            error(SecretSource::Credential("../x".into()))
                .contains("`../x` is not a valid credential name")
        );
    }
}
