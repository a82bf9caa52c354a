//! Changes to a signed message. Every single change must be detected.

use serde_json::{Value, json};

use crate::fixture::{now, original, topic, verify_at, with, word};

/// The values that replace the values of a body. Except for `null`, the body has none of these values.
const OTHERS: [&str; 4] = ["null", "77", "\"other\"", "[]"];

#[test]
fn a_changed_or_removed_key_is_detected() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let text = original.signed("good");
    let body: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let mut count = 0;
    for key in body.keys() {
        let others = OTHERS.map(|other| Some(serde_json::from_str(other).unwrap()));
        for other in others.into_iter().chain([None]) {
            if body.get(key) == other.as_ref() {
                continue;
            }
            let changed = with(&text, key, other);
            assert_ne!(word(&verifier, &changed), "accepted", "{changed}");
            assert_ne!(original.verdict(&changed, "ca.crt", Some("crl.pem")), "accepted");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn a_change_of_any_signed_character_is_detected() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let text = original.signed("good");
    let certificate = text.find("\"certificate\"").unwrap();
    let after = text[certificate + 15..].find('"').unwrap() + certificate + 16;
    let signature = text.find("\"signature\"").unwrap();
    let places = (0..certificate).chain(after..signature);
    for place in places {
        let mut changed = text.clone().into_bytes();
        changed[place] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        assert_ne!(word(&verifier, &changed), "accepted", "{place}: {changed}");
    }
}

#[test]
fn a_change_of_any_bit_of_the_signature_is_detected() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let text = original.signed("good");
    let body: Value = serde_json::from_str(&text).unwrap();
    let signature = body["signature"].as_str().unwrap().replace('\n', "");
    // Changes one bit of one base64 character at a time. The last characters are left out, because base64
    // does not use all of their bits.
    for place in 0..signature.len() - 3 {
        for bit in [1, 2, 4] {
            let mut changed = signature.clone().into_bytes();
            changed[place] ^= bit;
            let changed = String::from_utf8(changed).unwrap();
            let changed = with(&text, "signature", Some(json!(changed)));
            assert_ne!(word(&verifier, &changed), "accepted", "{place} {bit}");
        }
    }
}

#[test]
fn the_certificate_of_another_signer_is_detected() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let text = original.signed("good");
    for name in ["second", "large", "two-names", "ca"] {
        let swapped = with(&text, "certificate", Some(json!(original.field(name))));
        assert_eq!(word(&verifier, &swapped), "signature-wrong", "{name}");
        assert_eq!(original.verdict(&swapped, "ca.crt", Some("crl.pem")), "refused");
    }
}

#[test]
fn a_signed_message_under_another_topic_is_refused() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let text = original.signed("good");
    let other = format!("{}.other", topic());
    let rejection = verify_at(&verifier, &other, &text, now()).unwrap_err();
    assert_eq!(rejection.reason(), "topic-mismatch");
    let changed = with(&text, "topic", Some(json!(other)));
    let rejection = verify_at(&verifier, &other, &changed, now()).unwrap_err();
    assert_eq!(rejection.reason(), "signature-wrong");
}
