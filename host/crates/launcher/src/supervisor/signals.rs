//! The signals that the outer and the inner process receive.
//!
//! This module gives each signal its meaning, as a [`Notice`]. It does not know what a process does about a
//! notice. Both processes receive their signals through this module.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The time after the first stop signal during which further stop signals are treated as the same signal.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The meaning of a signal.
pub(super) enum Notice {
    /// The program should stop.
    Stop,
    /// All processes must be killed.
    Kill,
    /// A child has ended.
    ChildEnded,
}

/// The receiver of the calling process's signals.
pub(super) struct Signals {
    descriptor: File,
    stopped: Option<Instant>,
}

impl Signals {
    /// Creates a receiver for a file descriptor of signalfd(2).
    pub(super) fn new(descriptor: &OwnedFd) -> Self {
        let descriptor = descriptor.try_clone().expect("a new process has free file descriptors");
        Self { descriptor: descriptor.into(), stopped: None }
    }

    /// Waits for a signal. Returns `None` if the file descriptor cannot be read.
    pub(super) fn receive(&mut self) -> Option<Notice> {
        // `struct signalfd_siginfo` has 128 bytes. The first four are the signal number (signalfd(2)).
        let mut record = [0; 128];
        self.descriptor.read_exact(&mut record).ok()?;
        let signal = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
        Some(match (signal, self.stopped) {
            (libc::SIGCHLD, _) => Notice::ChildEnded,
            (libc::SIGUSR1, _) => Notice::Kill,
            (_, Some(first)) if first.elapsed() > REPEAT_INTERVAL => Notice::Kill,
            _ => {
                self.stopped.get_or_insert_with(Instant::now);
                Notice::Stop
            }
        })
    }
}
