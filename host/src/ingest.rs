//! Ingest: the path of a message from its source into a work queue.
//!
//! A source receives messages, verifies them and hands them to the ingest path. The ingest path
//! finds the tasks of the topic, skips tasks that already received the message, and makes one entry
//! for each other task. The publisher stores each entry in its queue, in the spool, or in the
//! quarantine. No module of ingest knows how a task is run.
//!
//! Imports point in one direction: `sources` imports `signers` and `path`, `path` imports `dedup`
//! and `publisher`, and `publisher` imports `spool` and `quarantine`.

mod dedup;
mod log_limit;
mod path;
mod publisher;
mod quarantine;
pub(crate) mod shared;
pub(crate) mod signers;
pub(crate) mod sources;
mod spool;
