//! Real servers for tests.
//!
//! A [`Rabbit`] is a private RabbitMQ node on free ports of the loopback address, without systemd,
//! beside whatever else the machine runs. A [`FedmsgPublisher`] is a PUB socket of the original
//! fedmsg. Each dies with the process that started it, however that dies.

mod python;
mod rabbit;

pub use python::{FedmsgPublisher, python};
pub use rabbit::{Rabbit, Vhost};
