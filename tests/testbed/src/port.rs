//! Free ports for servers.
//!
//! A killed server must find its ports free when it is started again, so they are below the range
//! that the kernel uses for outgoing connections. Otherwise a client that retries the port of a
//! dead server would at some time get that port as its own, and be connected to itself.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// By default Linux uses ports from 32768 on for outgoing connections.
const LOW: u64 = 12_000;
const HIGH: u64 = 32_000;

/// Returns a port on which no process listens.
pub(crate) fn free() -> u16 {
    let random = RandomState::new();
    (0..1000_u32)
        .filter_map(|number| u16::try_from(LOW + random.hash_one(number) % (HIGH - LOW)).ok())
        // On all addresses, because some servers listen on all of them.
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("there is a free port")
}
