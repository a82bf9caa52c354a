//! Any bytes are a message or a rejection, with signatures checked and not, as from a bus, as a
//! recording, and as a certificate of their own.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use loopabull_fedmsg::{
    Envelope, Rejection, RoutingPolicy, Trust, Verifier, X509, envelope_of_recording,
};

/// Within the time of the certificates of the corpus.
const NOW: i64 = 1_795_779_000;

static X509: LazyLock<Verifier> = LazyLock::new(|| {
    let trust = Trust::new(include_bytes!("../ca.crt"), Some(include_bytes!("../crl.pem")));
    let trust = trust.expect("they are our own");
    Verifier::X509(Box::new(X509::new(trust, RoutingPolicy::default())))
});

fuzz_target!(|body: &[u8]| {
    // A trust of hostile bytes is an operator's own mistake, and no reason to panic either.
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
