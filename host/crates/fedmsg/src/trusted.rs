//! Messages from trusted sources: a JSON text becomes a message directly.
//!
//! The trusted sources are the broker of a fedora-messaging bus, the work queue, the archive, and the
//! operator's own files. Messages from these sources are not signed, so they need no envelope and no
//! verifier. All other checks of a message are made. A source passes in the text and its AMQP properties. The
//! message goes to a queue.

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
