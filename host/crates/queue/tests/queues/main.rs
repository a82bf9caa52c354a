//! The queues, asked with a real SQLite file and a real RabbitMQ.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod amqp;
mod bed;
mod conformance;
mod embedded;
mod foreign;
