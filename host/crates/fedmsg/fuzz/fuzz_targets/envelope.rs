//! Fuzz target: any bytes become a message or a rejection, and never cause a panic. The same bytes are parsed
//! as the body of a message, as a recording, as a CA file and as a CRL. Messages are verified once with the
//! check of signatures and once without.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use loopabull_fedmsg::{
    Envelope, Rejection, RoutingPolicy, Trust, Verifier, X509, envelope_of_recording,
};

/// A time at which the certificates of the corpus are valid.
const NOW: i64 = 1_795_779_000;

static X509: LazyLock<Verifier> = LazyLock::new(|| {
    let trust = Trust::new(include_bytes!("../ca.crt"), Some(include_bytes!("../crl.pem")));
    let trust = trust.expect("the CA and the CRL are valid");
    Verifier::X509(Box::new(X509::new(trust, RoutingPolicy::default())))
});

fuzz_target!(|body: &[u8]| {
    // The operator chooses the CA and the CRL. Invalid files must not panic either.
    drop(Trust::new(body, Some(body)));
    drop(Trust::new(include_bytes!("../ca.crt"), Some(body)));
    let frames: [&[u8]; 2] = [b"org.example.prod.thing.done", body];
    for verifier in [&Verifier::Off, &*X509] {
        check(Envelope::parse(&frames, 2), verifier);
        check(envelope_of_recording(body), verifier);
    }
});

fn check(envelope: Result<Envelope, Rejection>, verifier: &Verifier) {
    if let Err(rejection) = envelope.and_then(|envelope| verifier.verify(envelope, NOW)) {
        assert!(Rejection::REASONS.contains(&rejection.reason()));
    }
}
