//! loopabull-host: a message arrives on the bus, waits in a durable queue, and a worker runs the
//! task of its topic: a WebAssembly component or an Ansible playbook.
//!
//! ARCHITECTURE.md walks one message through these modules.

mod ack_timeout;
pub mod board;
mod case;
pub mod catalog;
pub mod cli;
mod commands;
pub mod config;
pub mod daemon;
mod foreign;
pub mod ingest;
pub mod journal;
pub mod leftovers;
pub mod listing;
pub mod metrics;
mod outbox;
pub mod pauses;
pub mod playbook;
mod reload;
pub mod runner;
mod secrets;
mod seen;
pub mod shutdown;
mod spool;
mod stack;
pub mod state;
mod trust;
pub mod turns;
pub mod variables;
pub mod web;
pub mod worker;
pub mod workplace;
