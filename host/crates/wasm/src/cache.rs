//! The cache of compiled components, in a directory that only this user can write.
//!
//! The cache contains machine code that will run in this process, so each file is authenticated with a secret
//! key of this host. The name of a file is a hash of the component, the version of this crate and the
//! settings of the engine. The file starts with an HMAC of its name and content. If a file is invalid, the
//! engine ignores the file and compiles the component again.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

type HmacSha256 = Hmac<Sha256>;

const HMAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// The maximum size of a cache file that is read, in bytes. Machine code is about three times as large as its
/// component.
const MAX_FILE: u64 = 512 << 20;
/// The maximum number of compiled components. Beyond this limit, the least recently used files are removed.
const MAX_FILES: usize = 200;
/// The maximum size of all compiled components together, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// The cache of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

/// The reason why the cache or one of its files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cannot use the component cache at `{path}`")]
    Io { path: PathBuf, source: io::Error },
    #[error("the component cache `{path}` is not a directory that only this user can write")]
    Shared { path: PathBuf },
    #[error("the cache file `{path}` was not written by this host")]
    BadHmac { path: PathBuf },
}

impl Cache {
    /// Opens the cache directory. Creates the directory if it does not exist.
    pub(crate) fn open(folder: &Path) -> Result<Self, CacheError> {
        let cannot = |source| CacheError::Io { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let found = fs::symlink_metadata(folder).map_err(cannot)?;
        let is_ours = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_dir() || !is_ours || found.mode() & 0o022 != 0 {
            return Err(CacheError::Shared { path: folder.to_owned() });
        }
        let key = key(&folder.join("key")).map_err(cannot)?;
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// Returns the machine code that this host stored under a name, or `None` if the cache does not have the
    /// name.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.folder.join(name);
        let cannot = |source| CacheError::Io { path: path.clone(), source };
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
        };
        let mut bytes = Vec::new();
        (&file).take(MAX_FILE).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() < HMAC_BYTES {
            return Err(CacheError::BadHmac { path });
        }
        let code = bytes.split_off(HMAC_BYTES);
        let verified = self.hmac(name, &code).verify_slice(&bytes);
        verified.map_err(|_| CacheError::BadHmac { path: path.clone() })?;
        // The modification time records the last use. If it cannot be set, the only effect is that the file
        // may be removed earlier.
        drop(file.set_modified(SystemTime::now()));
        Ok(Some(code))
    }

    /// Stores machine code under a name atomically. Then removes the least recently used files until the
    /// cache is within its limits.
    pub(crate) fn store(&self, name: &str, code: &[u8]) -> Result<(), CacheError> {
        let path = self.folder.join(name);
        let cannot = |source| CacheError::Io { path: path.clone(), source };
        let mut part = tempfile::NamedTempFile::new_in(&self.folder).map_err(cannot)?;
        let hmac = self.hmac(name, code).finalize().into_bytes();
        part.write_all(&hmac).and_then(|()| part.write_all(code)).map_err(cannot)?;
        part.persist(&path).map_err(|error| cannot(error.error))?;
        self.evict().map_err(cannot)
    }

    fn hmac(&self, name: &str, code: &[u8]) -> HmacSha256 {
        let mut hmac =
            HmacSha256::new_from_slice(&self.key).expect("HMAC accepts keys of any length");
        hmac.update(name.as_bytes());
        hmac.update(&[0]);
        hmac.update(code);
        hmac
    }

    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            if entry.file_name() != "key" {
                let metadata = entry.metadata()?;
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_by(|a, b| b.cmp(a));
        let mut kept = 0;
        for (number, (_, bytes, path)) in files.iter().enumerate() {
            kept += bytes;
            if number >= MAX_FILES || (number > 0 && kept > MAX_BYTES) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Returns the name of the cache file for a component.
pub(crate) fn name(component: &[u8], engine: &wasmtime::Engine) -> String {
    let mut settings = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let mut digest = settings.0;
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(Sha256::digest(component));
    format!("{}.cwasm", hex::encode(digest.finalize()))
}

/// A hasher that computes the SHA-256 of a value that implements only [`Hash`].
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is read instead of `finish`")
    }
}

/// Returns the key of this host. Creates the key if it does not exist.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if !path.exists() {
        let folder = path.parent().expect("the key file has a parent directory");
        // `tempfile` creates a file that only its owner can read. If another process creates the key file
        // first, the key of that process is used.
        let mut part = tempfile::NamedTempFile::new_in(folder)?;
        part.write_all(&random()?)?;
        part.as_file().sync_all()?;
        match part.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error.error);
            }
            _ => (),
        }
    }
    let mut key = [0; KEY_BYTES];
    fs::File::open(path)?.read_exact(&mut key)?;
    Ok(key)
}

fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        (folder, cache)
    }

    #[test]
    fn a_stored_file_is_found_after_the_cache_is_opened_again() {
        let (folder, cache) = cache();
        assert_eq!(cache.find("a").unwrap(), None);
        cache.store("a", b"code").unwrap();
        let again = Cache::open(&folder.path().join("cache")).unwrap();
        assert_eq!(again.find("a").unwrap().unwrap(), b"code");
    }

    #[test]
    fn a_file_that_was_changed_truncated_renamed_or_copied_from_another_host_is_refused() {
        let (folder, cache) = cache();
        cache.store("a", b"code").unwrap();
        let path = folder.path().join("cache/a");
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 1], &good[..5], b""] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(cache.find("a"), Err(CacheError::BadHmac { .. })), "{bad:?}");
        }
        fs::write(folder.path().join("cache/b"), &good).unwrap();
        assert!(matches!(cache.find("b"), Err(CacheError::BadHmac { .. })));
        let (elsewhere, other) = self::cache();
        other.store("a", b"code").unwrap();
        fs::copy(elsewhere.path().join("cache/a"), &path).unwrap();
        assert!(matches!(cache.find("a"), Err(CacheError::BadHmac { .. })));
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let (folder, cache) = cache();
        cache.store("a", b"code").unwrap();
        let path = folder.path().join("cache/a");
        fs::rename(&path, folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a"), &path).unwrap();
        assert!(matches!(cache.find("a"), Err(CacheError::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let (folder, cache) = cache();
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
        let opened = Cache::open(&folder.path().join("cache"));
        assert!(matches!(opened, Err(CacheError::Shared { .. })));
    }

    #[test]
    fn the_least_recently_used_files_are_removed_first() {
        let (_folder, cache) = cache();
        for number in 0..MAX_FILES + 2 {
            cache.store(&format!("{number:04}"), b"code").unwrap();
        }
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), MAX_FILES + 1);
        assert!(cache.find(&format!("{:04}", MAX_FILES + 1)).unwrap().is_some());
        assert!(cache.find("0000").unwrap().is_none());
    }
}
