//! The raw limits beside which `cargo xtask bench messages` measures the host: what a client of RabbitMQ, SQLite and
//! wasmtime reach without anything around them. Also publishes messages at a rate, and fills a journal.
//!
//! The command of a limit does the work for a number of messages and prints how many seconds that took.
#![expect(clippy::print_stdout, reason = "a program whose output another one reads")]

mod body;
mod broker;
mod burst;
mod component;
mod fill;
mod pace;
mod sqlite;
mod verify;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures a raw limit
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    limit: Limit,
}

#[derive(Subcommand)]
enum Limit {
    /// Publishes persistent messages to a durable queue, with a window of confirms
    Publish(broker::Amqp),
    /// Publishes bus messages in the form of the Python loopabull's queue
    Backlog {
        #[command(flatten)]
        amqp: broker::Amqp,
        /// How many of each hundred messages a task wants
        #[arg(long, default_value_t = 100)]
        worked: u32,
    },
    /// Consumes and acknowledges each message of a queue
    Consume(broker::Amqp),
    /// Takes messages through an SQLite file: insert an entry; then insert its run and delete the entry. Each group is one
    /// synced transaction
    Sqlite {
        /// The number of messages
        messages: u32,
        /// The size of a group
        group: u32,
    },
    /// Calls the component `greet` in a fresh instance for each message
    Component {
        /// The directory of `greet.wasm` and `greet.toml`
        tasks: PathBuf,
        /// The number of messages
        messages: u32,
    },
    /// Verifies one RSA signature by a key of 2048 bits again and again
    Verify {
        /// The number of times
        messages: u32,
    },
    /// Publishes fedmsg messages as fast as it can, after a line on standard input. Prints a line when it is ready. Keeps all that the subscriber does
    /// not take yet, and ends with its standard input
    Burst {
        /// The address to bind, for example `tcp://127.0.0.1:4001`
        endpoint: String,
        /// A file with one message in each line
        file: PathBuf,
    },
    /// Receives fedmsg messages; prints the seconds from the first to the last
    Receive {
        /// The address of the publisher
        endpoint: String,
        /// The number of messages
        messages: u32,
    },
    /// Publishes fedmsg messages at a steady rate, and prints a line for each: its id, and when it was sent and when a
    /// subscriber had it, in milliseconds since 1970
    Pace {
        /// The address to bind
        endpoint: String,
        /// Messages per second
        rate: u32,
        /// The number of messages
        messages: u32,
    },
    /// Fills a journal with copies of one of its runs
    Fill {
        /// The file
        journal: PathBuf,
        /// The number of copies
        runs: u32,
    },
}

fn main() -> Result<()> {
    let seconds = match Cli::parse().limit {
        Limit::Publish(amqp) => broker::publish(&amqp)?,
        Limit::Backlog { amqp, worked } => broker::publish_backlog(&amqp, worked)?,
        Limit::Consume(amqp) => broker::consume(&amqp)?,
        Limit::Sqlite { messages, group } => sqlite::cycle(messages, group)?,
        Limit::Component { tasks, messages } => component::call(&tasks, messages)?,
        Limit::Verify { messages } => verify::verify(messages)?,
        Limit::Burst { endpoint, file } => burst::publish(&endpoint, &file)?,
        Limit::Receive { endpoint, messages } => burst::receive(&endpoint, messages)?,
        Limit::Pace { endpoint, rate, messages } => {
            return pace::publish(&endpoint, rate, messages);
        }
        Limit::Fill { journal, runs } => return fill::fill(&journal, runs),
    };
    // Who started a burst reads only its first line.
    drop(writeln!(std::io::stdout(), "{seconds}"));
    Ok(())
}
