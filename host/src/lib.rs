//! loopabull-host receives messages from a bus, stores them in a durable queue, and runs the task
//! of each message's topic. A task is a WebAssembly component or an Ansible playbook.
//!
//! ARCHITECTURE.md describes the path of one message through these modules, and which module may
//! import which.

mod api;
pub mod cli;
mod clock;
mod commands;
mod compare;
pub mod config;
mod daemon;
mod explain;
mod ingest;
pub mod journal;
mod modes;
mod observe;
mod percent;
mod shutdown;
mod tables;
pub mod tasks;
mod web;
mod work;
