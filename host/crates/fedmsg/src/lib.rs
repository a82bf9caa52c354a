//! Hostile bytes in, a message or a rejection out.
//!
//! The only crate that knows fedmsg's wire form and its signatures. No sockets, no files, no clock, no
//! runtime: the source hands frames in, and every frame comes out as an [`Envelope`] or a counted
//! [`Rejection`]; the host hands in the bytes of a CA and its CRL, and with each envelope the time.
//! Nothing here panics, whatever the bytes.
//!
//! # Differences from the original
//!
//! A verifier accepts what fedmsg 1.1.7 accepts (`fedmsg/crypto/x509_ng.py`), with the same signer, and
//! nothing else, but for this list, on which it is stricter. Each row has its test in
//! `tests/original/differences.rs`; `tests/original/random.rs` lets both judge random messages.
//!
//! | the original | here |
//! |---|---|
//! | raises an exception: credentials that are no base64 or no text, a certificate that is none, has no common name or a key of elliptic curves | a rejection of its own for each |
//! | takes lone surrogates, `NaN`, `Infinity`, numbers beyond a float, a thousand levels | refused: no task could read them. Depth is limited to 127; serde_json's reserved keys are refused |
//! | looks at no key but those of the signature and the topic | `msg` is there; `msg_id`, `timestamp`, `headers` have the form that fedmsg gives them, headers and ids have limits |
//! | of two equal keys the last one counts | of two keys that we read neither does |
//! | hands on the body as it was parsed | hands on the canonical text, so that a task gets what was signed and no other spelling of it |
//! | leaves the topic to the consumer, which may compare it with the envelope's | a topic is signed, has the alphabet of topics, and is the envelope's |
//! | reads the certificate with two libraries, which can see two: a block that is indented is one for only the second, so that any key signs for any name | one reader, and the first block that begins a line |
//! | takes every algorithm that OpenSSL has for certificates | RSA with SHA-1, SHA-256, SHA-512, and with SHA-384 if the CA has 2048 bits; keys of 1024 to 8192 bits; no MD5 |
//! | takes any common name | one that can be printed, of at most 255 bytes |
//! | takes a certificate of any length | up to 64 KiB, with base64 and all |
//! | takes a CA of version 1, without basic constraints | basic constraints must say that it is a CA |
//! | applies a CA's constraints on names and policies | refuses such a CA |
//! | takes a list of changes, or of some reasons only, as the CRL | refuses it, and any critical extension in a CRL |
//! | reads a gpg signature, which covers the payload alone, if configured | never |
//! | keeps CA and CRL for as long as the process lives, unless a check fails | the host makes a new [`Verifier`] of the new files; what was found good by the old one is forgotten |
//!
//! Names of issuers are compared byte by byte, where OpenSSL folds case and space; certificates and
//! lists must be DER to the last byte. No real one differs.

mod bare;
mod base64;
mod canonical;
mod certificate;
mod datagrepper;
mod distrust;
mod envelope;
mod foreign;
mod pem;
mod policy;
mod recording;
mod rejection;
mod trust;
mod verifier;
mod x509;

pub use bare::envelope_of_bare;
pub use canonical::{Credentials, JsonError, MAX_INTEGER_DIGITS, canonical_json};
pub use datagrepper::without_datagrepper;
pub use distrust::Distrust;
pub use envelope::{Envelope, MAX_BODY_BYTES};
pub use foreign::{Properties, envelope_of_foreign};
pub use policy::{RoutingPolicy, Unlisted};
pub use recording::envelope_of_recording;
pub use rejection::Rejection;
pub use trust::{Trust, TrustError};
pub use verifier::Verifier;
pub use x509::X509;
