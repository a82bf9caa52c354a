//! Hostile bytes in, a message or a rejection out.
//!
//! The only crate that knows fedmsg's wire form. No sockets, no clock, no runtime: the source
//! hands frames in, and every frame comes out as an [`Envelope`] or a counted [`Rejection`].
//! Nothing here panics, whatever the bytes.

mod canonical;
mod envelope;
mod foreign;
mod recording;
mod rejection;
mod verifier;

pub use canonical::{Credentials, JsonError, MAX_INTEGER_DIGITS, canonical_json};
pub use envelope::{Envelope, MAX_BODY_BYTES};
pub use foreign::{Properties, envelope_of_foreign};
pub use recording::envelope_of_recording;
pub use rejection::Rejection;
pub use verifier::Verifier;
