//! The signals that the outer and the inner process receive.
//!
//! Owns the meaning of each signal. Must not know what is done about it. Before it: the kernel; after
//! it: the loops of both processes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The time after a first stop signal during which further ones count as the same signal.
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The meaning of a signal.
pub(super) enum Notice {
    /// The program is to stop.
    Stop,
    /// All processes are to be killed.
    Kill,
    /// A child has ended.
    ChildEnded,
}

/// The signals of the calling process, one after the other.
pub(super) struct Signals {
    descriptor: File,
    stopped: Option<Instant>,
}

impl Signals {
    /// Receives from a descriptor of signalfd(2).
    pub(super) fn new(descriptor: &OwnedFd) -> Self {
        let descriptor = descriptor.try_clone().expect("a new process has free descriptors");
        Self { descriptor: descriptor.into(), stopped: None }
    }

    /// Waits for a signal. Returns nothing if reading fails.
    pub(super) fn receive(&mut self) -> Option<Notice> {
        // struct signalfd_siginfo of signalfd(2) has 128 bytes; the first four are the signal.
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
