//! The current state of a bus, for the status page.

use std::time::SystemTime;

/// The current state of a bus.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BusState {
    pub link: BusLink,
    /// Time at which this state began. If only the reason of a problem changes, this time stays the same.
    pub since: SystemTime,
    /// Number of times that the bus was consumed again after a problem.
    pub reconnects: u64,
}

/// Whether the bus is consumed, and if not, the reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BusLink {
    /// The first attempt to connect has not ended yet.
    Connecting,
    Consuming {
        /// Name of the queue on the broker.
        queue: String,
        /// Reason of a memory or disk alarm of the broker. The alarm blocks publishers, so no new messages
        /// arrive.
        blocked: Option<String>,
    },
    /// The bus cannot be consumed, for a reason in one line. The client keeps retrying.
    Broken { reason: String },
    /// The host has stopped the bus.
    Stopped,
}

impl BusState {
    pub(crate) fn new() -> Self {
        Self { link: BusLink::Connecting, since: SystemTime::now(), reconnects: 0 }
    }

    /// Returns whether the bus is consumed.
    pub fn is_consuming(&self) -> bool {
        matches!(self.link, BusLink::Consuming { .. })
    }

    /// Returns the current problem, if there is one.
    pub fn problem(&self) -> Option<String> {
        match &self.link {
            BusLink::Connecting => Some("not yet connected".to_owned()),
            BusLink::Consuming { blocked: Some(reason), .. } => {
                Some(format!("the broker accepts no messages: {reason}"))
            }
            BusLink::Broken { reason } => Some(reason.clone()),
            BusLink::Consuming { blocked: None, .. } | BusLink::Stopped => None,
        }
    }

    /// Sets the link, and returns whether the link changed.
    pub(crate) fn set(&mut self, link: BusLink) -> bool {
        if self.link == link {
            return false;
        }
        let was_broken = matches!(self.link, BusLink::Broken { .. });
        match &link {
            BusLink::Broken { .. } if was_broken => (),
            _ => self.since = SystemTime::now(),
        }
        self.reconnects += u64::from(was_broken && matches!(link, BusLink::Consuming { .. }));
        self.link = link;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(reason: &str) -> BusLink {
        BusLink::Broken { reason: reason.to_owned() }
    }

    #[test]
    fn a_problem_keeps_its_beginning_when_its_reason_changes() {
        let mut state = BusState::new();
        assert!(state.set(broken("a")));
        let since = state.since;
        assert!(state.set(broken("b")));
        assert!(!state.set(broken("b")));
        assert_eq!((state.since, state.problem()), (since, Some("b".to_owned())));
    }

    #[test]
    fn consuming_again_after_a_problem_is_a_reconnect() {
        let mut state = BusState::new();
        let up = BusLink::Consuming { queue: "q".to_owned(), blocked: None };
        state.set(up.clone());
        assert_eq!((state.reconnects, state.is_consuming()), (0, true));
        state.set(broken("a"));
        state.set(up);
        assert_eq!((state.reconnects, state.problem()), (1, None));
    }
}
