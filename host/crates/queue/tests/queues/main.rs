//! The queues, tested with a real SQLite file and a real RabbitMQ.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod conformance;
mod embedded;
mod external;
mod fixture;
mod rabbitmq;
mod subscription;
mod together;
