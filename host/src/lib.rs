//! loopabull-host: a message arrives on the bus, waits in a durable queue, and a worker runs the
//! task of its topic: a WebAssembly component or an Ansible playbook.
//!
//! ARCHITECTURE.md walks one message through these modules and lists which of them may import which.

pub mod cli;
mod clock;
mod commands;
pub mod config;
mod daemon;
mod error;
mod ingest;
pub mod journal;
mod observe;
mod shutdown;
pub mod tasks;
mod web;
mod work;
