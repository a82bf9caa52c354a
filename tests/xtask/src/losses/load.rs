//! The load, which is the same for every system.

/// The topic, routing key and playbook of every message.
pub(super) const TOPIC: &str = "org.example.prod.losses.run";
/// The number of tasks that run at a time.
pub(super) const WORKERS: usize = 5;
