//! The cache of compiled components: a directory that only this user can write.
//!
//! What is in it is machine code that will run in this process, so nothing is taken from it that was
//! not written with this host's key. The name of a file says of what it was compiled, by which
//! engine, with which settings; the seal is over name and content. Whatever is wrong with a file, it
//! is as if it were not there, and the component is compiled anew.

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

type Seal = Hmac<Sha256>;

const SEAL_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// The largest file that is read, in bytes. Machine code is some three times its component.
const MAX_FILE: u64 = 512 << 20;
/// How many compiled components are kept; the longest unused go first.
const MAX_FILES: usize = 200;
/// How many bytes they may have together.
const MAX_BYTES: u64 = 2 << 30;

/// The cache of compiled components.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

/// Why there is no cache, or nothing in it for a component.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cannot use the cache `{path}`")]
    Io { path: PathBuf, source: io::Error },
    #[error("others than this user may write into the cache `{path}`")]
    Shared { path: PathBuf },
    #[error("the file `{path}` of the cache is not one that this host wrote")]
    Foreign { path: PathBuf },
}

impl Cache {
    /// Opens the cache; makes it if there is none.
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

    /// Returns what was kept under a name, if this host wrote it; none if there is nothing.
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
        if bytes.len() < SEAL_BYTES {
            return Err(CacheError::Foreign { path });
        }
        let code = bytes.split_off(SEAL_BYTES);
        let sealed = self.seal(name, &code).verify_slice(&bytes);
        sealed.map_err(|_| CacheError::Foreign { path: path.clone() })?;
        // The time says when it was used last. If that cannot be set it only goes earlier.
        drop(file.set_modified(SystemTime::now()));
        Ok(Some(code))
    }

    /// Keeps something under a name, in one step.
    pub(crate) fn keep(&self, name: &str, code: &[u8]) -> Result<(), CacheError> {
        let path = self.folder.join(name);
        let cannot = |source| CacheError::Io { path: path.clone(), source };
        let mut part = tempfile::NamedTempFile::new_in(&self.folder).map_err(cannot)?;
        let seal = self.seal(name, code).finalize().into_bytes();
        part.write_all(&seal).and_then(|()| part.write_all(code)).map_err(cannot)?;
        part.persist(&path).map_err(|error| cannot(error.error))?;
        self.sweep().map_err(cannot)
    }

    fn seal(&self, name: &str, code: &[u8]) -> Seal {
        let mut seal = Seal::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        seal.update(name.as_bytes());
        seal.update(&[0]);
        seal.update(code);
        seal
    }

    fn sweep(&self) -> io::Result<()> {
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

/// Returns the name under which what is compiled of a component is kept.
pub(crate) fn name(component: &[u8], engine: &wasmtime::Engine) -> String {
    let mut settings = Settings(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let mut digest = settings.0;
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(Sha256::digest(component));
    let digest = digest.finalize();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.cwasm")
}

/// Hashes with SHA-256 what only knows how to hash itself.
struct Settings(Sha256);

impl Hasher for Settings {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the whole digest is used")
    }
}

/// Returns the key of this host; makes one if there is none.
fn key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    if !path.exists() {
        let folder = path.parent().expect("the key is in the cache");
        // Only its owner can read what `tempfile` makes. Whoever is second takes the first one's.
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
    fn what_was_kept_is_found_again_by_the_next_process() {
        let (folder, cache) = cache();
        assert_eq!(cache.find("a").unwrap(), None);
        cache.keep("a", b"code").unwrap();
        let again = Cache::open(&folder.path().join("cache")).unwrap();
        assert_eq!(again.find("a").unwrap().unwrap(), b"code");
    }

    #[test]
    fn what_was_changed_cut_renamed_or_brought_along_is_refused() {
        let (folder, cache) = cache();
        cache.keep("a", b"code").unwrap();
        let path = folder.path().join("cache/a");
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&flipped[..], &good[..good.len() - 1], &good[..5], b""] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(cache.find("a"), Err(CacheError::Foreign { .. })), "{bad:?}");
        }
        fs::write(folder.path().join("cache/b"), &good).unwrap();
        assert!(matches!(cache.find("b"), Err(CacheError::Foreign { .. })));
        let (elsewhere, other) = self::cache();
        other.keep("a", b"code").unwrap();
        fs::copy(elsewhere.path().join("cache/a"), &path).unwrap();
        assert!(matches!(cache.find("a"), Err(CacheError::Foreign { .. })));
    }

    #[test]
    fn a_link_is_not_followed() {
        let (folder, cache) = cache();
        cache.keep("a", b"code").unwrap();
        let path = folder.path().join("cache/a");
        fs::rename(&path, folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a"), &path).unwrap();
        assert!(matches!(cache.find("a"), Err(CacheError::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_may_write_is_no_cache() {
        let (folder, cache) = cache();
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
        let opened = Cache::open(&folder.path().join("cache"));
        assert!(matches!(opened, Err(CacheError::Shared { .. })));
    }

    #[test]
    fn the_longest_unused_go_first() {
        let (_folder, cache) = cache();
        for number in 0..MAX_FILES + 2 {
            cache.keep(&format!("{number:04}"), b"code").unwrap();
        }
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), MAX_FILES + 1);
        assert!(cache.find(&format!("{:04}", MAX_FILES + 1)).unwrap().is_some());
        assert!(cache.find("0000").unwrap().is_none());
    }
}
