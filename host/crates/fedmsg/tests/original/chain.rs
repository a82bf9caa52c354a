//! Valid and invalid certificates, CAs and revocation lists, verified by this crate and by the Python fedmsg.

use crate::fixture::{now, original, word, word_at};

/// Signs a message with the key of this certificate and verifies it with both verifiers.
fn check(name: &str, ca: &str, crl: Option<&str>, expected: &str) {
    let original = original();
    let text = original.signed(name);
    let ours = word(&original.verifier(ca, crl), &text);
    assert_eq!(ours, expected, "{name} {ca} {crl:?}");
    let theirs = original.verdict(&text, ca, crl);
    assert_eq!(
        theirs == "accepted",
        expected == "accepted",
        "{name} {ca} {crl:?}: the Python fedmsg said {theirs}"
    );
}

fn check_leaf(name: &str, expected: &str) {
    check(name, "ca.crt", Some("crl.pem"), expected);
}

#[test]
fn a_certificate_of_the_ca_is_accepted() {
    check_leaf("good", "accepted");
    check_leaf("uncritical", "accepted");
    check_leaf("good-hint", "accepted");
    check("good", "ca.crt", None, "accepted");
    check("revoked", "ca.crt", None, "accepted");
    check("of-other", "ca-other.crt", None, "accepted");
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    check_leaf("of-other", "other-ca");
    check_leaf("of-double", "certificate-forged");
    check_leaf("forged", "certificate-forged");
    check_leaf("other-hint", "other-ca");
    check_leaf("other-serial-hint", "other-ca");
    check_leaf("below", "other-ca");
    check("good", "ca-other.crt", None, "other-ca");
    check("good", "ca-double.crt", None, "certificate-forged");
}

#[test]
fn a_certificate_outside_its_validity_is_refused() {
    check_leaf("expired", "certificate-expired");
    check_leaf("future", "certificate-not-yet-valid");
    check("good", "ca-expired.crt", None, "ca-expired");
    check("good", "ca-future.crt", None, "ca-not-yet-valid");
}

#[test]
fn a_certificate_is_judged_at_the_given_time() {
    let original = original();
    let verifier = original.verifier("ca-expired.crt", None);
    let text = original.signed("expired");
    assert_eq!(word_at(&verifier, &text, now() - 10 * 86_400), "accepted");
    assert_eq!(word(&verifier, &text), "ca-expired");
}

#[test]
fn a_revoked_certificate_is_refused() {
    check_leaf("revoked", "certificate-revoked");
    check_leaf("high-serial", "certificate-revoked");
    check("good", "ca.crt", Some("crl-more.pem"), "certificate-revoked");
    check("revoked", "ca.crt", Some("crl-uncritical.pem"), "certificate-revoked");
    check("revoked", "ca.crt", Some("crl-empty.pem"), "accepted");
    check("good", "ca.crt", Some("crl-of-ca.pem"), "ca-revoked");
}

#[test]
fn a_revocation_list_outside_its_validity_refuses_every_message() {
    check("good", "ca.crt", Some("crl-expired.pem"), "crl-expired");
    check("good", "ca.crt", Some("crl-future.pem"), "crl-not-yet-valid");
}

#[test]
fn a_key_a_name_or_an_extension_that_the_original_cannot_handle_is_refused() {
    check_leaf("nameless", "common-name-missing");
    check_leaf("elliptic", "bad-key");
    check_leaf("critical", "critical-extension");
    check_leaf("useless", "certificate-unreadable");
}

#[test]
fn a_trust_is_valid_until_its_ca_or_its_revocation_list_expires() {
    let original = original();
    let day = 86_400;
    let end = |crl| original.trust("ca.crt", crl).unwrap().valid_until() - now();
    assert!((3649 * day..=3650 * day).contains(&end(None)));
    assert!((29 * day..=30 * day).contains(&end(Some("crl.pem"))));
    assert!(end(Some("crl-expired.pem")) < 0);
}

#[test]
fn the_first_of_two_cas_in_a_file_is_used() {
    check("good", "ca-two.crt", None, "accepted");
    check("of-other", "ca-two.crt", None, "other-ca");
    check("of-other", "ca-two-reversed.crt", None, "accepted");
}

#[test]
fn a_ca_file_can_be_in_der_form() {
    let original = original();
    assert_eq!(word(&original.verifier("ca.der", None), &original.signed("good")), "accepted");
}

/// Checks that this crate refuses the CA or the CRL, and that the Python fedmsg refuses a valid message with
/// them.
fn check_trust(ca: &str, crl: Option<&str>, expected: &str) {
    let original = original();
    assert_eq!(original.trust(ca, crl).unwrap_err().to_string(), expected);
    assert_ne!(original.verdict(&original.signed("good"), ca, crl), "accepted", "{ca} {crl:?}");
}

#[test]
fn a_file_that_is_not_a_self_signed_ca_is_refused() {
    const NONE: &str = "the CA's certificate is not a self-signed CA certificate: ";
    let none = |ca: &str, reason: &str| check_trust(ca, None, &format!("{NONE}{reason}"));
    none("ca-no-basic.crt", "its basic constraints do not say that it is a CA");
    none("ca-not-ca.crt", "its basic constraints do not say that it is a CA");
    none("ca-below.crt", "another CA signed it");
    none("ca-no-certificates.crt", "its key usage does not allow signing certificates");
    check_trust(
        "ca-critical.crt",
        None,
        "the CA's certificate cannot be read: certificate has the unknown \
         critical extension 1.3.6.1.4.1.55555.1",
    );
    check_trust(
        "ca.key",
        None,
        "the CA's certificate cannot be read: its first PEM block has another label",
    );
    check_trust("good.crt", None, &format!("{NONE}another CA signed it"));
}

#[test]
fn an_unusable_revocation_list_is_refused() {
    let list = |crl: &str, expected: &str| check_trust("ca.crt", Some(crl), expected);
    list("crl-forged.pem", "the CRL has no signature of this CA with an accepted algorithm");
    list("crl-of-other.pem", "the CRL was not issued by this CA");
    list("crl-critical.pem", "the CRL has the unsupported extension 1.3.6.1.4.1.55555.1");
    list("crl-entry-critical.pem", "the CRL has the unsupported extension 1.3.6.1.4.1.55555.1");
    list("ca.crt", "the CRL cannot be read: its first PEM block has another label");
    check_trust("ca-no-lists.crt", Some("crl.pem"), "the CRL was not issued by this CA");
}
