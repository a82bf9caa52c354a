//! Messages from trusted sources: a JSON text becomes a message without an envelope and a verifier.
//!
//! The trusted sources are the broker of a fedora-messaging bus, the work queue, the archive, and the
//! operator's own files. Signatures are not checked for these sources. All other checks of a message are
//! made. The host passes in the text and, if there are any, the AMQP properties. The host then publishes the
//! message to its queues.

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
