//! Tests of the cache of compiled components. A task runs even if the cache contains damaged files.

use std::fs;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use loopabull_model::Outcome;
use loopabull_wasm::Source;
use sha2::Sha256;

use crate::test_host::{Guest, TestHost, Trial};

/// Loads the guest with a new runner, runs it, and returns the origin of its machine code.
fn source(cache: &Path) -> Source {
    let host = TestHost::with_cache(Some(cache));
    let component = host.load(Guest::default());
    let attempt = host.run(&component, Trial::default(), 2);
    assert_eq!(attempt.outcome, Outcome::Reject { reason: "m-1".into() });
    component.source
}

/// Returns the only file in the cache besides the key.
fn file(cache: &Path) -> PathBuf {
    let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let mut files = files.filter(|path| path.file_name().unwrap() != "key");
    let file = files.next().unwrap();
    assert_eq!(files.next(), None);
    file
}

fn filled() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    assert_eq!(source(&cache), Source::Compiled);
    (folder, cache)
}

/// Damages the cache file, and checks that the component is recompiled and cached.
fn check(damage: impl Fn(&Path, Vec<u8>)) {
    let (_folder, cache) = filled();
    let file = file(&cache);
    damage(&file, fs::read(&file).unwrap());
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
}

#[test]
fn the_next_runner_loads_the_component_from_the_cache() {
    let (_folder, cache) = filled();
    assert_eq!(source(&cache), Source::Cache);
}

#[test]
fn a_component_is_compiled_again_if_its_file_was_changed() {
    for at in [0_usize, 31, 32, 4096] {
        check(|file, mut bytes| {
            bytes[at] ^= 1;
            fs::write(file, bytes).unwrap();
        });
    }
}

#[test]
fn a_component_is_compiled_again_if_its_file_was_truncated() {
    check(|file, bytes| fs::write(file, &bytes[..bytes.len() / 2]).unwrap());
    check(|file, bytes| fs::write(file, &bytes[..7]).unwrap());
    check(|file, _| fs::write(file, b"").unwrap());
}

#[test]
fn a_component_is_compiled_again_if_its_file_is_from_another_host() {
    let (_folder, other) = filled();
    let external = fs::read(file(&other)).unwrap();
    check(|file, _| fs::write(file, &external).unwrap());
}

#[test]
fn a_component_is_compiled_again_if_authentic_content_is_not_machine_code() {
    check(|file, _| {
        let code = b"\x7fELF no code at all";
        let key = fs::read(file.with_file_name("key")).unwrap();
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        hmac.update(file.file_name().unwrap().as_encoded_bytes());
        hmac.update(&[0]);
        hmac.update(code);
        fs::write(file, [&hmac.finalize().into_bytes()[..], code].concat()).unwrap();
    });
}

#[test]
fn a_directory_or_a_link_in_place_of_the_file_is_harmless() {
    let (_folder, cache) = filled();
    let file = file(&cache);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    // A directory that has the name of the cache file cannot be replaced by a file, so the component is
    // compiled at each load.
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Compiled);
}

#[test]
fn a_component_is_compiled_again_if_the_key_changed() {
    let (_folder, cache) = filled();
    fs::write(cache.join("key"), [7; 32]).unwrap();
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
}
