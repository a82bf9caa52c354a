//! Fuzz target: for any text, `canonical_json` returns the canonical form or an error. The canonical form of
//! a canonical text is that text itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loopabull_fedmsg::{Credentials, canonical_json, without_datagrepper};

fuzz_target!(|text: &str| {
    let Ok(canonical) = canonical_json(text, Credentials::Kept) else { return };
    assert!(canonical.is_ascii());
    assert_eq!(canonical_json(&canonical, Credentials::Kept).as_ref(), Ok(&canonical));
    let signed =
        canonical_json(text, Credentials::LeftOut).expect("the form with credentials exists");
    assert!(signed.len() <= canonical.len());
    assert_eq!(canonical_json(&signed, Credentials::LeftOut).as_ref(), Ok(&signed));
    let stored = without_datagrepper(text).expect("the text is JSON");
    canonical_json(&stored, Credentials::Kept).expect("the result is JSON");
});
