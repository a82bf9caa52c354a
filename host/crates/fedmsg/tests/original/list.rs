//! The test cases of the Python fedmsg (1.1.7, `tests/crypto` and `tests/consumers`), and additional cases.

use std::sync::Arc;

use loopabull_fedmsg::{RoutingPolicy, Unlisted};
use loopabull_model::Topic;
use serde_json::{Value, json};

use crate::fixture::{Original, body, now, original, topic, verify_at, with, word, word_at};

/// Verifies a body with both verifiers. The Python fedmsg must accept exactly the bodies that this crate
/// accepts.
fn check(original: &Original, text: &str, expected: &str) {
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&verifier, text), expected, "{text}");
    let theirs = original.verdict(text, "ca.crt", Some("crl.pem"));
    assert_eq!(
        theirs == "accepted",
        expected == "accepted",
        "the Python fedmsg said {theirs}: {text}"
    );
}

/// Verifies a valid message with both verifiers after one key was changed, added or removed.
fn check_with(key: &str, value: Option<Value>, expected: &str) {
    let original = original();
    check(&original, &with(&original.signed("good"), key, value), expected);
}

#[test]
fn a_message_that_the_original_signed_is_accepted_with_its_signer() {
    let original = original();
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    for (name, signer) in [
        ("good", "good.example.org"),
        ("second", "second.example.org"),
        ("large", "large.example.org"),
        ("two-names", "first.example.org"),
    ] {
        let text = original.signed(name);
        check(&original, &text, "accepted");
        let message = verify_at(&verifier, topic(), &text, now()).unwrap();
        assert_eq!(message.signer.as_deref(), Some(signer));
        assert_eq!(message.topic.as_str(), topic());
        assert_eq!(message.id.as_str(), "2026-0b3f5b3e");
        assert_eq!(message.sent_at, Some(1_504_642_719));
        assert_eq!(message.body.to_value(), body()["msg"]);
    }
}

#[test]
fn a_signed_body_is_accepted_in_another_formatting() {
    let original = original();
    let text = original.signed("good");
    let body: Value = serde_json::from_str(&text).unwrap();
    check(&original, &serde_json::to_string_pretty(&body).unwrap(), "accepted");
    check(&original, &text.replace("\\u00f6", "ö").replace("topic", "\\u0074opic"), "accepted");
    check(&original, &text.replace("1.5", "15E-1"), "accepted");
    check(&original, &text.replace("\"certificate\"", " \"certificate\" "), "accepted");
}

#[test]
fn an_unsigned_body_is_refused() {
    check(&original(), &body().to_string(), "unsigned");
}

#[test]
fn a_body_without_one_credential_is_refused() {
    check_with("signature", None, "signature-missing");
    check_with("certificate", None, "certificate-missing");
}

#[test]
fn the_kind_of_signature_is_determined_as_in_the_original() {
    check_with("crypto", Some(json!("gpg")), "gpg-signature");
    check_with("crypto", Some(json!("rot13")), "unknown-crypto");
    check_with("crypto", Some(json!("X509")), "unknown-crypto");
    check_with("crypto", Some(Value::Null), "unknown-crypto");
    check_with("crypto", Some(json!(["x509"])), "unknown-crypto");
    let original = original();
    let unnamed = with(&original.signed("good"), "crypto", None);
    check(&original, &with(&unnamed, "certificate", None), "gpg-signature");
    // An old version would publish a body without `crypto`. But here the signature was made with `crypto`, so
    // it does not match.
    check(&original, &unnamed, "signature-wrong");
}

#[test]
fn a_message_of_an_old_version_without_the_key_crypto_is_accepted() {
    let original = original();
    let text = original.ask(json!({
        "do": "sign", "text": body().to_string(), "name": "good", "legacy": true,
    }));
    let text = text.as_str().unwrap();
    assert!(!text.contains("crypto"));
    check(&original, text, "accepted");
}

#[test]
fn credentials_that_are_not_text_are_refused() {
    for key in ["signature", "certificate"] {
        for value in [json!(5), Value::Null, json!(["x"]), json!({}), json!(true)] {
            check_with(key, Some(value), "credential-not-text");
        }
    }
}

#[test]
fn credentials_that_are_not_base64_are_refused() {
    for key in ["signature", "certificate"] {
        for value in ["A", "Zm9vY", "Zm9v=Y", "Ö", "Zm9vÖ"] {
            check_with(key, Some(json!(value)), "bad-base64");
        }
    }
    check_with("signature", Some(json!("thisisnotmysignature")), "signature-wrong");
    check_with("signature", Some(json!("")), "signature-wrong");
}

#[test]
fn base64_is_accepted_in_one_line_and_with_other_characters_between() {
    let original = original();
    let text = original.signed("good");
    let body: Value = serde_json::from_str(&text).unwrap();
    for key in ["signature", "certificate"] {
        let field = body[key].as_str().unwrap();
        check(&original, &with(&text, key, Some(json!(field.replace('\n', "")))), "accepted");
        check(&original, &with(&text, key, Some(json!(field.replace('\n', "!\n -_")))), "accepted");
    }
}

#[test]
fn unreadable_certificates_are_refused() {
    let check =
        |value: &str| check_with("certificate", Some(json!(value)), "certificate-unreadable");
    check("");
    check("Zm9v");
    // The first text is a PEM certificate that contains `foo`, the second one has no end line.
    check("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tClptOXYKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=");
    check("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==");
}

#[test]
fn a_key_that_is_added_after_signing_invalidates_the_signature() {
    check_with("seq_id", Some(json!(1)), "signature-wrong");
    check_with("headers", Some(json!({})), "signature-wrong");
    check_with("source_name", Some(json!("datanommer")), "signature-wrong");
}

fn policy(signers: &[&str], unlisted: Unlisted) -> RoutingPolicy {
    let topic = Topic::try_from(topic()).unwrap();
    let signers: Vec<_> = signers.iter().map(|&name| name.to_owned()).collect();
    RoutingPolicy::new((!signers.is_empty()).then_some((topic, signers)), unlisted)
}

#[test]
fn the_routing_policy_lists_the_allowed_signers_of_a_topic() {
    let original = original();
    let text = original.signed("two-names");
    let check = |signers: &[&str], unlisted, expected| {
        let verifier = original.verifier_with("ca.crt", None, policy(signers, unlisted));
        assert_eq!(word(&verifier, &text), expected);
        let lines = if signers.is_empty() { json!({}) } else { json!({topic(): signers}) };
        let theirs = original.ask(json!({
            "do": "validate", "text": text, "policy": lines,
            "nitpicky": unlisted == Unlisted::Refuse,
        }));
        assert_eq!(theirs == "accepted", expected == "accepted", "the Python fedmsg said {theirs}");
    };
    check(&["first.example.org"], Unlisted::Refuse, "accepted");
    check(&["x", "first.example.org"], Unlisted::Accept, "accepted");
    check(&["good.example.org"], Unlisted::Accept, "signer-not-allowed");
    check(&["good.example.org"], Unlisted::Refuse, "signer-not-allowed");
    check(&[], Unlisted::Accept, "accepted");
    check(&[], Unlisted::Refuse, "topic-not-in-policy");
}

#[test]
fn threads_can_share_a_verifier() {
    let original = original();
    let verifier = Arc::new(original.verifier("ca.crt", Some("crl.pem")));
    let good = original.signed("good");
    let bad = with(&good, "i", Some(json!(2)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (verifier, good, bad) = (Arc::clone(&verifier), good.clone(), bad.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(word(&verifier, &good), "accepted");
                    assert_eq!(word(&verifier, &bad), "signature-wrong");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn the_keys_that_datagrepper_adds_are_removed_as_in_the_original() {
    let original = original();
    let text = original.signed("good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let mut stored: Value = serde_json::from_str(&text).unwrap();
    stored["source_name"] = json!("datanommer");
    stored["source_version"] = json!("0.6.5");
    stored["headers"] = json!({});
    let stored = serde_json::to_string(&stored).unwrap().replace("1504642719", "1504642719.0");
    assert_eq!(word(&verifier, &stored), "signature-wrong");
    let envelope = loopabull_fedmsg::envelope_of_recording(stored.as_bytes()).unwrap();
    assert!(verifier.verify(envelope, now()).is_ok());
    for text in [
        stored.clone(),
        stored.replace("1504642719.0", "1504642719.99"),
        stored.replace("\"headers\":{}", "\"headers\":{\"a\":1}"),
        stored.replace("source_name", "source"),
        stored.replace("\"timestamp\":1504642719.0,", ""),
    ] {
        let theirs = original.ask(json!({"do": "without_datagrepper", "text": text}));
        let ours = loopabull_fedmsg::without_datagrepper(&text).unwrap();
        let ours = loopabull_fedmsg::canonical_json(&ours, loopabull_fedmsg::Credentials::Kept);
        assert_eq!(theirs.as_str(), ours.ok().as_deref());
    }
}

#[test]
fn a_cached_certificate_is_checked_again_at_each_time() {
    let original = original();
    let text = original.signed("good");
    let verifier = original.verifier("ca.crt", None);
    let year = 365 * 86_400;
    assert_eq!(word(&verifier, &text), "accepted");
    assert_eq!(word_at(&verifier, &text, now() + year + 60), "certificate-expired");
    assert_eq!(word(&verifier, &text), "accepted");
    assert_eq!(word_at(&verifier, &text, now() - 2 * 86_400), "ca-not-yet-valid");
    assert_eq!(word_at(&verifier, &text, now() + 20 * year), "ca-expired");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&verifier, &text), "accepted");
    assert_eq!(word_at(&verifier, &text, now() + 31 * 86_400), "crl-expired");
}

#[test]
fn a_certificate_that_is_revoked_later_is_refused_by_a_new_verifier() {
    let original = original();
    let text = original.signed("good");
    let before = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&before, &text), "accepted");
    let after = original.verifier("ca.crt", Some("crl-more.pem"));
    assert_eq!(word(&after, &text), "certificate-revoked");
}
