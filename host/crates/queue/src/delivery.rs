//! What a worker receives.

use std::time::Duration;

use loopabull_model::{Entry, Settlement};

use crate::dead_letter::Burial;

/// What a worker receives.
#[derive(Debug)]
pub enum Received {
    /// An entry, for one attempt.
    Delivery(Delivery),
    /// Something that others put into the queue.
    Foreign(Foreign),
}

/// One entry of the queue, handed to one worker for one attempt.
#[derive(Debug)]
pub struct Delivery {
    pub entry: Entry,
    /// Which attempt this is, counted from 1, as far as the queue knows: one more than have been
    /// settled. Whoever knows of attempts that were cut off sets it higher.
    pub attempt: u32,
    /// When the entry was first published, in milliseconds since 1970.
    pub queued_at_ms: i64,
    /// Its earlier lives, if it was a dead letter before.
    pub(crate) history: Vec<Burial>,
    pub(crate) tag: Tag,
}

/// Something that others put into the queue: neither task nor attempt is known of it.
#[derive(Debug)]
pub struct Foreign {
    pub body: Vec<u8>,
    /// By which it came into the queue: a topic, if it came through a topic exchange.
    pub routing_key: String,
    /// The property of that name.
    pub message_id: Option<String>,
    /// The headers that hold text.
    pub headers: Vec<(String, String)>,
    pub(crate) tag: Tag,
}

impl Delivery {
    /// Returns how many attempts the entry has had once it is settled so.
    pub(crate) fn attempts_after(&self, settlement: &Settlement) -> u32 {
        match settlement {
            Settlement::GiveBack { .. } | Settlement::Hold => self.attempt.saturating_sub(1),
            _ => self.attempt,
        }
    }
}

/// By what a backend knows its delivery again.
#[derive(Debug)]
pub(crate) enum Tag {
    /// The row.
    Embedded(i64),
    /// The broker's delivery.
    Amqp(crate::amqp::Claim),
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Depth {
    /// Entries that wait for a worker.
    pub waiting: u64,
    /// Entries that wait for the end of a pause between two attempts.
    pub later: u64,
    /// Entries that wait for their task to be resumed.
    pub held: u64,
    /// Entries that workers have. Unknown to a client of RabbitMQ.
    pub claimed: Option<u64>,
    /// Entries that were set aside.
    pub dead: u64,
    /// How long the oldest waiting entry has been in the queue. Unknown to a client of RabbitMQ.
    pub oldest: Option<Duration>,
}
