//! The schedule of the datagrepper source decides when to catch up, that is, when to search the
//! archive for missed messages.
//!
//! A catch-up is due after each connect of a fedmsg endpoint. It is due once more after the
//! configured time `overlap`, because the archive stores a message a little later than the bus
//! delivers it. While an endpoint is not connected, a catch-up is also due at an interval. This
//! module does not search.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config;
use crate::ingest::sources::fedmsg::Connections;

/// Interval at which the progress is saved while all endpoints are connected.
const NOTE_INTERVAL: Duration = Duration::from_secs(30);
/// Interval between catch-ups while an endpoint is not connected.
const PARTIAL_INTERVAL: Duration = Duration::from_mins(5);
/// Time for which a dead connection stays undetected if nothing detects it. No daemon runs that
/// long.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// The schedule of the datagrepper source.
pub(super) struct Schedule {
    connections: watch::Receiver<Connections>,
    overlap: Duration,
    /// Number of established connections at the last catch-up. None before the first catch-up.
    established: Option<u64>,
    last: Last,
    /// Time of the repeated catch-up after a connect, if one is planned.
    repeat: Option<Instant>,
    /// Time of the next catch-up if an endpoint is not connected.
    partial: Instant,
}

/// An action that is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// A catch-up, because messages may have been missed.
    CatchUp,
    /// Saving the progress, because all endpoints are connected and no message is being missed.
    AllConnected,
}

/// The reason for the last action. The times of the next catch-ups depend on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Last {
    Connect,
    Repeat,
    Other,
}

impl Schedule {
    /// Creates a schedule. The first catch-up is due at once.
    pub(super) fn new(connections: watch::Receiver<Connections>, overlap: Duration) -> Self {
        let partial = Instant::now() + PARTIAL_INTERVAL;
        Self { connections, overlap, established: None, last: Last::Other, repeat: None, partial }
    }

    /// Waits for the next action and returns it. Call this function again after the action has
    /// ended.
    pub(super) async fn next(&mut self) -> Due {
        let last = std::mem::replace(&mut self.last, Last::Other);
        if last != Last::Other {
            let now = Instant::now();
            self.repeat = (last == Last::Connect).then(|| now + self.overlap);
            self.partial = now + PARTIAL_INTERVAL;
        }
        loop {
            let established = self.connections.borrow_and_update().established;
            if self.established != Some(established) {
                self.established = Some(established);
                self.last = Last::Connect;
                return Due::CatchUp;
            }
            let now = Instant::now();
            if self.repeat.is_some_and(|repeat| now >= repeat) {
                self.last = Last::Repeat;
                return Due::CatchUp;
            }
            let note = now + NOTE_INTERVAL;
            let tick = self.repeat.map_or(note, |repeat| repeat.min(note));
            tokio::select! {
                changed = self.connections.changed() => if changed.is_err() {
                    // The thread of the sockets has ended, because the daemon is stopping. Nothing
                    // more is due.
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep_until(tick) => if self.connections.borrow().all_connected {
                    return Due::AllConnected;
                } else if Instant::now() >= self.partial {
                    self.partial = Instant::now() + PARTIAL_INTERVAL;
                    return Due::CatchUp;
                },
            }
        }
    }
}

/// Returns the longest time for which a dead connection to any of the endpoints can stay
/// undetected.
pub(super) fn undetected(endpoints: &[config::Endpoint]) -> Duration {
    let of_one = |endpoint: &config::Endpoint| {
        let heartbeat = endpoint.heartbeat.map(|interval| interval * 2);
        [heartbeat, endpoint.idle].into_iter().flatten().min().unwrap_or(FOREVER)
    };
    endpoints.iter().map(of_one).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Duration = Duration::from_mins(2);

    fn connections(established: u64, all_connected: bool) -> Connections {
        Connections { established, all_connected }
    }

    #[tokio::test(start_paused = true)]
    async fn catching_up_is_due_at_each_connect_and_once_after_the_overlap() {
        let (sender, receiver) = watch::channel(connections(0, false));
        let mut schedule = Schedule::new(receiver, OVERLAP);
        assert_eq!(schedule.next().await, Due::CatchUp);
        sender.send_replace(connections(1, true));
        assert_eq!(schedule.next().await, Due::CatchUp);
        let start = Instant::now();
        while schedule.next().await == Due::AllConnected {}
        assert_eq!(start.elapsed().as_secs(), OVERLAP.as_secs());
        // After that, only the progress is saved.
        for _ in 0..100 {
            assert_eq!(schedule.next().await, Due::AllConnected);
        }
        sender.send_replace(connections(2, true));
        assert_eq!(schedule.next().await, Due::CatchUp);
    }

    #[tokio::test(start_paused = true)]
    async fn catching_up_is_due_every_five_minutes_while_an_endpoint_is_not_connected() {
        let (_sender, receiver) = watch::channel(connections(1, false));
        let mut schedule = Schedule::new(receiver, OVERLAP);
        assert_eq!(schedule.next().await, Due::CatchUp);
        let mut times = Vec::new();
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(schedule.next().await, Due::CatchUp);
            times.push(start.elapsed().as_secs());
        }
        assert_eq!(times, [120, 420, 720]);
    }

    #[test]
    fn a_dead_connection_is_detected_by_the_heartbeat_or_the_idle_limit() {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let check = |heartbeat: Option<u64>, idle: Option<u64>| {
            let (heartbeat, idle) = (seconds(heartbeat), seconds(idle));
            let endpoint = config::Endpoint { address: String::new(), heartbeat, idle };
            undetected(&[endpoint]).as_secs()
        };
        assert_eq!(check(Some(30), Some(600)), 60);
        assert_eq!(check(None, Some(600)), 600);
        assert!(check(None, None) > 86_400);
    }
}
