//! Any text has a canonical form or an error, and what is canonical stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loopabull_fedmsg::{Credentials, canonical_json, without_datagrepper};

fuzz_target!(|text: &str| {
    let Ok(canonical) = canonical_json(text, Credentials::Kept) else { return };
    assert!(canonical.is_ascii());
    assert_eq!(canonical_json(&canonical, Credentials::Kept).as_ref(), Ok(&canonical));
    let signed = canonical_json(text, Credentials::LeftOut).expect("both forms or none");
    assert!(signed.len() <= canonical.len());
    assert_eq!(canonical_json(&signed, Credentials::LeftOut).as_ref(), Ok(&signed));
    let stored = without_datagrepper(text).expect("it is JSON");
    canonical_json(&stored, Credentials::Kept).expect("it still is");
});
