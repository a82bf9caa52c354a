//! Messages from trusted sources: a JSON text becomes a message directly.
//!
//! Trusted are the broker of a fedora-messaging bus, the work queue, the archive, and the operator's
//! own files. Nothing of them is signed, so there is no envelope and no verifier; every other check of
//! a message is made all the same. Before it on the path of a message: a source, with the text and its
//! AMQP properties. After it: the queue.

mod bus;
mod integers;
mod members;
mod message;
#[cfg(test)]
mod random;
mod recording;
mod work_queue;

pub use bus::from_bus;
pub use message::Properties;
pub use recording::from_recording;
pub use work_queue::from_work_queue;
