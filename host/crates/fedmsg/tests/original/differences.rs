//! Differences from the Python fedmsg: messages that this crate refuses, while the Python fedmsg accepts them
//! or raises an exception. Each difference is a row of the table in the crate's documentation. The messages
//! that both refuse are in the tests of `list.rs` and `chain.rs`.

use serde_json::{Value, json};

use crate::fixture::{body, now, original, topic, verify_at, with, word};

/// Signs a body unchanged and compares both verdicts with the expected verdicts.
fn check_body(text: &str, theirs: &str, expected: &str) {
    let original = original();
    let text = original.sign(text, "good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&verifier, &text), expected, "{text}");
    assert_eq!(original.verdict(&text, "ca.crt", Some("crl.pem")), theirs, "{text}");
}

/// Checks a body with this payload, given as JSON text.
fn check_msg(msg: &str, expected: &str) {
    check_body(&format!(r#"{{"topic":"{}","msg":{msg}}}"#, topic()), "accepted", expected);
}

fn check_leaf(name: &str, theirs: &str, expected: &str) {
    let original = original();
    let text = original.signed(name);
    assert_eq!(word(&original.verifier("ca.crt", Some("crl.pem")), &text), expected, "{name}");
    assert_eq!(original.verdict(&text, "ca.crt", Some("crl.pem")), theirs, "{name}");
}

#[test]
fn a_body_that_raises_an_exception_in_the_original_is_refused() {
    let original = original();
    let text = original.signed("good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let check = |changed: &str, theirs: &str, expected: &str| {
        assert_eq!(word(&verifier, changed), expected, "{changed}");
        assert_eq!(original.verdict(changed, "ca.crt", Some("crl.pem")), theirs, "{changed}");
    };
    check(&with(&text, "signature", Some(json!("A"))), "Error", "bad-base64");
    check(&with(&text, "signature", Some(json!("Ö"))), "ValueError", "bad-base64");
    check(&with(&text, "signature", Some(json!(5))), "AttributeError", "credential-not-text");
    check(&with(&text, "certificate", Some(json!("Zm9v"))), "Error", "certificate-unreadable");
    check(&with(&text, "crypto", Some(json!([]))), "TypeError", "unknown-crypto");
    check_leaf("nameless", "IndexError", "common-name-missing");
    check_leaf("elliptic", "TypeError", "bad-key");
}

/// Versions of Python disagree on such a text, so the same message would have two signatures.
#[test]
fn base64_text_after_the_padding_is_refused() {
    let original = original();
    let text = original.signed("good");
    let body: Value = serde_json::from_str(&text).unwrap();
    // The signature has 128 bytes, so its text ends in padding.
    let signature = body["signature"].as_str().unwrap().trim_end();
    assert!(signature.ends_with('='), "{signature}");
    let changed = with(&text, "signature", Some(json!(format!("{signature}Zm9v"))));
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&verifier, &changed), "bad-base64");
    // CPython 3.11 ignores the rest. 3.13 refuses it with an exception.
    let theirs = original.verdict(&changed, "ca.crt", Some("crl.pem"));
    assert!(["accepted", "refused", "Error"].contains(&theirs.as_str()), "{theirs}");
}

#[test]
fn a_body_that_a_task_cannot_read_is_refused() {
    check_msg(r#""\ud800""#, "lone-surrogate");
    check_msg("[NaN]", "body-not-json");
    check_msg("{\"a\":-Infinity}", "body-not-json");
    check_msg("1e400", "body-not-json");
    check_msg(&("[".repeat(127) + &"]".repeat(127)), "body-too-deep");
    check_msg(&("[".repeat(126) + &"]".repeat(126)), "accepted");
    check_msg(r#"{"$serde_json::private::Number":"1"}"#, "reserved-key");
}

#[test]
fn the_keys_that_we_read_must_have_the_types_that_fedmsg_writes() {
    let with_key = |key: &str, value: Value, expected: &str| {
        check_body(&with(&body().to_string(), key, Some(value)), "accepted", expected);
    };
    with_key("msg_id", json!(5), "body-shape");
    with_key("msg_id", json!("a b"), "bad-message-id");
    with_key("timestamp", json!("5"), "body-shape");
    with_key("headers", json!([]), "body-shape");
    with_key("headers", json!({"h": "x".repeat(70_000)}), "headers-too-large");
    check_body(&with(&body().to_string(), "msg", None), "accepted", "body-shape");
}

#[test]
fn a_key_that_we_read_must_not_be_repeated() {
    let original = original();
    let text = original.signed("good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let twice = text.replacen('{', "{\"msg\":{\"evil\":1},", 1);
    assert_eq!(word(&verifier, &twice), "body-shape");
    assert_eq!(original.verdict(&twice, "ca.crt", Some("crl.pem")), "accepted");
    // If another key is repeated, every reader uses the last value.
    let other = text.replacen('{', "{\"i\":7,", 1);
    assert_eq!(word(&verifier, &other), "accepted");
    assert_eq!(original.verdict(&other, "ca.crt", Some("crl.pem")), "accepted");
}

#[test]
fn a_task_gets_the_canonical_form_that_was_signed() {
    let original = original();
    let text =
        original.sign(&with(&body().to_string(), "msg", Some(json!({"b": "ö", "a": 1.5}))), "good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let signed = r#"{"a":1.5,"b":"\u00f6"}"#;
    assert!(text.contains(signed));
    let other = text.replace(signed, r#"{ "a" : 9, "b":"\u00F6", "a":1.50000000000000000001}"#);
    let message = verify_at(&verifier, topic(), &other, now()).unwrap();
    assert_eq!(message.body.as_str(), signed);
    assert_eq!(original.verdict(&other, "ca.crt", Some("crl.pem")), "accepted");
}

#[test]
fn a_message_without_an_id_gets_one_that_does_not_depend_on_its_formatting() {
    let original = original();
    let text = original.sign(&with(&body().to_string(), "msg_id", None), "good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let first = verify_at(&verifier, topic(), &text, now()).unwrap();
    let other =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&text).unwrap()).unwrap();
    assert_eq!(verify_at(&verifier, topic(), &other, now()).unwrap().id, first.id);
}

#[test]
fn a_signed_body_must_have_the_topic_of_its_envelope() {
    check_body(&with(&body().to_string(), "topic", None), "accepted", "topic-missing");
    check_body(
        &with(&body().to_string(), "topic", Some(json!("a.b"))),
        "accepted",
        "topic-mismatch",
    );
    check_body(&with(&body().to_string(), "topic", Some(json!(5))), "accepted", "body-shape");
}

#[test]
fn the_chain_and_the_signature_are_checked_with_the_same_certificate() {
    // The Python fedmsg checks the chain with one library and the signature with another. The first library
    // ignores an indented PEM block and the second does not, so a signature with any key is accepted.
    let original = original();
    let attacker = original.signed("of-double");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    assert_eq!(word(&verifier, &attacker), "certificate-forged");
    let blocks =
        [b" ".to_vec(), original.read("of-double.crt"), original.read("good.crt")].concat();
    let blocks = String::from_utf8(blocks).unwrap();
    let field = text(original.ask(json!({"do": "encoded", "text": blocks})));
    let attack = with(&attacker, "certificate", Some(json!(field)));
    assert_eq!(original.verdict(&attack, "ca.crt", Some("crl.pem")), "accepted");
    assert_eq!(word(&verifier, &attack), "signature-wrong");
}

fn text(value: Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn old_and_rare_algorithms_are_refused() {
    check_leaf("md5", "accepted", "certificate-algorithm");
    check_leaf("sha224", "accepted", "certificate-algorithm");
    // aws-lc-rs supports SHA-384 only for keys of at least 2048 bits. The key of this CA has 1024 bits.
    check_leaf("sha384", "accepted", "certificate-forged");
}

#[test]
fn a_common_name_with_a_control_character_is_refused() {
    check_leaf("bad-name", "accepted", "bad-common-name");
}

#[test]
fn an_overlong_certificate_is_refused() {
    let original = original();
    let text_ = original.signed("good");
    let body: Value = serde_json::from_str(&text_).unwrap();
    let long = body["certificate"].as_str().unwrap().to_owned() + &"\n".repeat(65_536);
    let long = with(&text_, "certificate", Some(json!(long)));
    assert_eq!(word(&original.verifier("ca.crt", None), &long), "certificate-unreadable");
    assert_eq!(original.verdict(&long, "ca.crt", None), "accepted");
}

/// Checks that this crate refuses the CA or the CRL, and that the Python fedmsg accepts a message with them.
fn check_trust(ca: &str, crl: Option<&str>) {
    let original = original();
    assert!(original.trust(ca, crl).is_err(), "{ca} {crl:?}");
    assert_eq!(original.verdict(&original.signed("good"), ca, crl), "accepted", "{ca} {crl:?}");
}

#[test]
fn a_ca_without_basic_constraints_is_refused() {
    check_trust("ca-first-version.crt", None);
}

#[test]
fn a_ca_with_name_constraints_is_refused() {
    check_trust("ca-constraints.crt", None);
}

#[test]
fn a_delta_revocation_list_is_refused() {
    check_trust("ca.crt", Some("crl-delta.pem"));
}

#[test]
fn gpg_signatures_are_refused() {
    let original = original();
    let text =
        json!({"topic": topic(), "msg": {}, "crypto": "gpg", "signature": "Zm9v"}).to_string();
    let ours = word(&original.verifier("ca.crt", None), &text);
    assert_eq!(ours, "gpg-signature");
}
