//! The cache of compiled components, as a runner uses it: whatever lies in it, the task runs.

use std::fs;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use loopabull_model::Outcome;
use loopabull_wasm::Source;
use sha2::Sha256;

use crate::bed::{Bed, Guest, Trial};

/// Loads the guest in a process that begins anew, runs it, and returns where it came from.
fn source(cache: &Path) -> Source {
    let bed = Bed::with_cache(Some(cache));
    let component = bed.load(Guest::default());
    let attempt = bed.run(&component, Trial::default(), 2);
    assert_eq!(attempt.outcome, Outcome::Reject { reason: "m-1".into() });
    component.source
}

/// Returns the one file beside the key.
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

/// Spoils the file, and fails unless the component is compiled anew and kept again.
fn check(spoil: impl Fn(&Path, Vec<u8>)) {
    let (_folder, cache) = filled();
    let file = file(&cache);
    spoil(&file, fs::read(&file).unwrap());
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
}

#[test]
fn the_next_process_takes_it_from_the_cache() {
    let (_folder, cache) = filled();
    assert_eq!(source(&cache), Source::Cache);
}

#[test]
fn a_file_that_was_changed_is_compiled_anew() {
    for at in [0_usize, 31, 32, 4096] {
        check(|file, mut bytes| {
            bytes[at] ^= 1;
            fs::write(file, bytes).unwrap();
        });
    }
}

#[test]
fn a_file_that_was_cut_or_emptied_is_compiled_anew() {
    check(|file, bytes| fs::write(file, &bytes[..bytes.len() / 2]).unwrap());
    check(|file, bytes| fs::write(file, &bytes[..7]).unwrap());
    check(|file, _| fs::write(file, b"").unwrap());
}

#[test]
fn a_file_of_another_host_is_compiled_anew() {
    let (_folder, other) = filled();
    let foreign = fs::read(file(&other)).unwrap();
    check(|file, _| fs::write(file, &foreign).unwrap());
}

#[test]
fn what_is_sealed_but_no_machine_code_is_compiled_anew() {
    check(|file, _| {
        let code = b"\x7fELF no code at all";
        let key = fs::read(file.with_file_name("key")).unwrap();
        let mut seal = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        seal.update(file.file_name().unwrap().as_encoded_bytes());
        seal.update(&[0]);
        seal.update(code);
        fs::write(file, [&seal.finalize().into_bytes()[..], code].concat()).unwrap();
    });
}

#[test]
fn a_directory_or_a_link_in_its_place_does_no_harm() {
    let (_folder, cache) = filled();
    let file = file(&cache);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    // Nothing can be kept there, so it is compiled each time.
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Compiled);
}

#[test]
fn with_another_key_everything_is_compiled_anew() {
    let (_folder, cache) = filled();
    fs::write(cache.join("key"), [7; 32]).unwrap();
    assert_eq!(source(&cache), Source::Compiled);
    assert_eq!(source(&cache), Source::Cache);
}
