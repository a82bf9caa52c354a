//! Free ports for servers.
//!
//! When a killed server is started again, its ports must still be free. So the ports are below the range from
//! which the kernel takes the source ports of outgoing connections. With a port in that range, a client that
//! tries to reach the dead server could get the server's port as its own source port, and connect to itself.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// The range of the ports. By default Linux uses ports from 32768 on for outgoing connections.
const LOW: u64 = 12_000;
const HIGH: u64 = 32_000;

/// Returns a port on which no process listens.
pub(crate) fn free() -> u16 {
    let random = RandomState::new();
    (0..1000_u32)
        .filter_map(|number| u16::try_from(LOW + random.hash_one(number) % (HIGH - LOW)).ok())
        // The port must be free on all addresses, because some servers listen on all of them.
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("there is a free port")
}
