//! Real servers for tests.
//!
//! A [`Rabbit`] is a private RabbitMQ node on free ports of the loopback address, without systemd,
//! beside whatever else the machine runs. It dies with the process that started it, however that
//! dies.

mod rabbit;

pub use rabbit::{Rabbit, Vhost};
