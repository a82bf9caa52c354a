//! The verifier beside the original: a Python fedmsg signs and judges, we judge too.
//!
//! All keys and certificates are made anew for each run. Random runs print their seed;
//! `LOOPABULL_SEED` sets another, `LOOPABULL_MESSAGES` says how many messages.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bed;
mod chain;
mod differences;
mod json;
mod list;
mod random;
mod random_json;
mod tampering;
