//! Tests that compare our verifier with the original. The Python fedmsg signs and verifies messages, and our
//! verifier verifies the same messages.
//!
//! Each run makes new keys and certificates. Tests with random messages print their seed. `LOOPABULL_SEED`
//! sets the seed, and `LOOPABULL_MESSAGES` the number of messages.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod chain;
mod differences;
mod fixture;
mod json;
mod list;
mod random;
mod random_json;
mod tampering;
