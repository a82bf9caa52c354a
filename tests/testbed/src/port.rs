//! Ports for servers.
//!
//! A killed server must find its ports free when it comes back, so they lie below those that the
//! kernel gives to outgoing connections: a client that knocks at the port of a dead server again
//! and again would else be given that very port in the end, and be connected to itself.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// Linux gives ports from 32768 on, unless it was told otherwise.
const LOW: u64 = 12_000;
const HIGH: u64 = 32_000;

/// Returns a port that nobody listens on.
pub(crate) fn free() -> u16 {
    let random = RandomState::new();
    (0..1000_u32)
        .filter_map(|number| u16::try_from(LOW + random.hash_one(number) % (HIGH - LOW)).ok())
        // On any address: some servers listen on all of them.
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("there is a free port")
}
