//! A delivery: one entry of the queue, handed to one worker for one attempt.

use std::time::Duration;

use loopabull_model::{EntryId, Message, TaskName};

/// One entry of the queue, handed to one worker for one attempt.
#[derive(Debug)]
pub struct Delivery {
    /// The same for every attempt.
    pub entry: EntryId,
    pub message: Message,
    pub task: TaskName,
    /// Which attempt this is, counted from 1 over crashes and restarts of everything.
    pub attempt: u32,
    pub(crate) tag: Tag,
}

/// By what a backend knows its delivery again.
#[derive(Debug)]
pub(crate) enum Tag {
    /// The row.
    Embedded(i64),
    /// The broker's delivery, which holds the handle to acknowledge it by.
    Amqp(Box<lapin::message::Delivery>),
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Depth {
    /// Entries that wait for a worker.
    pub waiting: u64,
    /// Entries that workers hold. Unknown to a client of RabbitMQ.
    pub claimed: Option<u64>,
    /// Entries that were set aside.
    pub dead: u64,
    /// How long the oldest waiting entry has been in the queue. Unknown to a client of RabbitMQ.
    pub oldest: Option<Duration>,
}
