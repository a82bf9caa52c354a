//! Real servers for tests, and functions that cause faults of these servers. Also the oracle, which finds
//! lost messages in the logs of a test.
//!
//! A [`Rabbit`] is a private RabbitMQ node on free ports of the loopback address. It needs no systemd, does
//! not disturb other servers of the machine, and can be killed, frozen and started again. A
//! [`FedmsgPublisher`] is a PUB socket of the original fedmsg. Each server ends with the test process that
//! started it, even if the test process is killed.

mod ansible;
mod browser;
mod cable;
mod cluster;
mod fake_time;
mod interpreter;
mod network;
pub mod oracle;
mod pki;
mod port;
mod process;
mod proxy;
mod publisher;
mod rabbit;
mod repository;
mod wal;

pub use ansible::ansible_playbooks;
pub use browser::{Browser, Colours, ConsoleLine};
pub use cable::Cable;
pub use cluster::Cluster;
pub use fake_time::fake_time;
pub use interpreter::python;
pub use pki::Pki;
pub use proxy::Proxy;
pub use publisher::FedmsgPublisher;
pub use rabbit::vhost::Vhost;
pub use rabbit::{Rabbit, TlsNode};
pub use repository::repository;
pub use wal::cuts;
