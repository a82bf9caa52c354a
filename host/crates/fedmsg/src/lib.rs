//! Turns untrusted bytes into a message or a rejection.
//!
//! This is the only crate that knows the wire formats of messages and the signatures of fedmsg. It uses no
//! sockets, no files, no clock and no async runtime. The host's fedmsg source passes the received frames in,
//! and each message becomes an [`Envelope`] or a [`Rejection`]. A [`Verifier`] turns an envelope into a
//! message. The host gives the verifier the bytes of the CA and its CRL, and the current time with each
//! envelope. Texts from trusted sources become messages without an envelope, see [`trusted`]. No input makes
//! this crate panic.
//!
//! # Differences from the Python fedmsg
//!
//! A verifier accepts no message that fedmsg 1.1.7 (`fedmsg/crypto/x509_ng.py`) refuses, and finds the same
//! signer. It refuses some messages that fedmsg accepts. The table and the two rules below it list all of
//! these cases. Each row has a test in `tests/original/differences.rs`. In `tests/original/random.rs`, fedmsg
//! and this crate verify the same random messages.
//!
//! | fedmsg 1.1.7 | this crate |
//! |---|---|
//! | raises an exception if signature or certificate is not base64 or not text, or if the certificate is unreadable, has no common name or has an elliptic-curve key | rejects the message, with a different reason for each case |
//! | accepts lone surrogates, `NaN`, `Infinity`, numbers beyond a float, a thousand levels of nesting | refuses these, because no task could read them; limits the depth to 127; refuses serde_json's reserved keys |
//! | reads only the topic and the keys of the signature | requires `msg`; requires `msg_id`, `timestamp` and `headers` in the form that fedmsg gives them; limits headers and ids |
//! | uses the last of two equal keys | refuses a body that repeats a key that this crate reads |
//! | passes on the parsed body | passes on the canonical text, so that a task gets exactly the text that was signed |
//! | leaves the topic to the consumer, which may compare it with the envelope's | requires a signed topic that equals the envelope's topic and has only the characters of topics |
//! | reads the certificate with two libraries. Only the second library reads an indented block, so the two may use different certificates, and any key can sign for any name | reads the certificate once: the first PEM block that starts at the beginning of a line |
//! | accepts every algorithm that OpenSSL has for certificates | accepts RSA with SHA-1, SHA-256, SHA-512, and with SHA-384 if the CA has 2048 bits; keys of 1024 to 8192 bits; no MD5 |
//! | accepts any common name | accepts printable ones of at most 255 bytes |
//! | ignores base64 text after the padding (CPython 3.11) or decodes it (CPython 3.13) | rejects the message |
//! | accepts a certificate of any length | accepts certificates of up to 64 KiB of base64 text |
//! | accepts a version 1 CA certificate, which has no basic constraints | requires basic constraints with `CA:TRUE` |
//! | applies the name and policy constraints of a CA | refuses a CA with such constraints |
//! | accepts a delta CRL, and a CRL that lists only some revocation reasons | refuses these, and any critical extension in a CRL |
//! | can be configured to accept gpg signatures, which cover only the payload | refuses gpg signatures |
//! | keeps CA and CRL until the process ends, unless a check fails | keeps no state between verifiers: for new files the host makes a new [`Verifier`], which checks every certificate again |
//!
//! Issuer names are compared byte by byte, while OpenSSL ignores differences in case and whitespace.
//! Certificates and CRLs must be valid DER without trailing bytes. No real certificate is affected by these
//! two rules.

mod base64;
mod canonical;
mod certificate;
mod content_id;
mod datagrepper;
mod envelope;
mod headers;
mod pem;
mod policy;
mod recording;
mod rejection;
mod signature_error;
mod trust;
pub mod trusted;
mod verifier;
mod x509;

pub use canonical::{Credentials, JsonError, MAX_INTEGER_DIGITS, canonical_json};
pub use datagrepper::without_datagrepper;
pub use envelope::{Envelope, MAX_BODY_BYTES};
pub use policy::{RoutingPolicy, Unlisted};
pub use recording::envelope_of_recording;
pub use rejection::Rejection;
pub use signature_error::SignatureError;
pub use trust::{Trust, TrustError};
pub use verifier::Verifier;
pub use x509::X509;
