//! Turns hostile bytes into a message or a rejection.
//!
//! The only crate that knows the wire forms of messages, and fedmsg's signatures. It has no sockets, no
//! files, no clock and no runtime. The fedmsg source passes frames in, and each pair of frames becomes an
//! [`Envelope`] or a [`Rejection`]; a [`Verifier`] turns the envelope into a message. The host passes in
//! the bytes of a CA and its CRL, and the time with each envelope. Texts from trusted sources become
//! messages directly, see [`trusted`]. No input makes this crate panic.
//!
//! # Differences from the original
//!
//! A verifier accepts the messages that fedmsg 1.1.7 accepts (`fedmsg/crypto/x509_ng.py`), with the same
//! signer, and no others. It is stricter only in the rows of this table. Each row has its test in
//! `tests/original/differences.rs`; `tests/original/random.rs` lets both judge random messages.
//!
//! | the original | this crate |
//! |---|---|
//! | raises an exception if credentials are not base64 or not text, or if the certificate is unreadable, has no common name or has an elliptic-curve key | rejects each with a reason of its own |
//! | accepts lone surrogates, `NaN`, `Infinity`, numbers beyond a float, a thousand levels of nesting | refuses them, because no task could read them; limits the depth to 127; refuses serde_json's reserved keys |
//! | reads only the keys of the signature and the topic | requires `msg`; requires `msg_id`, `timestamp` and `headers` in the form that fedmsg gives them; limits headers and ids |
//! | takes the last of two equal keys | refuses a body that repeats a key that we read |
//! | passes the body on as it was parsed | passes on the canonical text, so that a task gets the text that was signed and no other spelling of it |
//! | leaves the topic to the consumer, which may compare it with the envelope's | requires a signed topic in the alphabet of topics that equals the envelope's |
//! | reads the certificate with two libraries, which may see two different ones: only the second sees an indented block, so any key signs for any name | has one reader, which takes the first block that begins a line |
//! | accepts every algorithm that OpenSSL has for certificates | accepts RSA with SHA-1, SHA-256, SHA-512, and with SHA-384 if the CA has 2048 bits; keys of 1024 to 8192 bits; no MD5 |
//! | accepts any common name | accepts printable ones of at most 255 bytes |
//! | accepts a certificate of any length | accepts up to 64 KiB, encoded |
//! | accepts a CA of version 1, without basic constraints | requires basic constraints that say that it is a CA |
//! | applies a CA's constraints on names and policies | refuses such a CA |
//! | accepts a delta CRL, or one for some reasons only | refuses it, and any critical extension in a CRL |
//! | reads a gpg signature, which covers only the payload, if configured | never reads one |
//! | keeps CA and CRL for as long as the process lives, unless a check fails | is replaced by the host: a new [`Verifier`] of the new files trusts no certificate that the old one accepted |
//!
//! Issuer names are compared byte by byte, where OpenSSL folds case and space; certificates and CRLs
//! must be DER to the last byte. No real one is affected.

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
