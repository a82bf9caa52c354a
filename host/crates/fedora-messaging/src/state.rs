//! What is known of the bus at this moment, for whoever shows it.

use std::time::SystemTime;

/// What is known of the bus at this moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BusState {
    pub link: BusLink,
    /// Since when it is so: of a trouble, since its beginning, whatever is wrong meanwhile.
    pub since: SystemTime,
    /// How often it was consumed again after it had been lost.
    pub reconnects: u64,
}

/// Whether the bus is consumed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BusLink {
    /// For the first time.
    Connecting,
    Consuming {
        /// As the broker names it.
        queue: String,
        /// The broker has a memory or disk alarm: its publishers wait, and so nothing new comes.
        blocked: Option<String>,
    },
    /// What is wrong, in one line. It is tried again.
    Broken { reason: String },
    /// We were told to.
    Stopped,
}

impl BusState {
    pub(super) fn new() -> Self {
        Self { link: BusLink::Connecting, since: SystemTime::now(), reconnects: 0 }
    }

    /// Tells whether deliveries come.
    pub fn is_consuming(&self) -> bool {
        matches!(self.link, BusLink::Consuming { .. })
    }

    /// Tells what is wrong, if anything is.
    pub fn trouble(&self) -> Option<String> {
        match &self.link {
            BusLink::Connecting => Some("not yet connected".to_owned()),
            BusLink::Consuming { blocked: Some(reason), .. } => {
                Some(format!("the broker takes no messages: {reason}"))
            }
            BusLink::Broken { reason } => Some(reason.clone()),
            BusLink::Consuming { blocked: None, .. } | BusLink::Stopped => None,
        }
    }

    /// Notes how it is now; returns whether that is anything new.
    pub(super) fn set(&mut self, link: BusLink) -> bool {
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
    fn a_trouble_is_as_old_as_its_beginning() {
        let mut state = BusState::new();
        assert!(state.set(broken("a")));
        let since = state.since;
        assert!(state.set(broken("b")));
        assert!(!state.set(broken("b")));
        assert_eq!((state.since, state.trouble()), (since, Some("b".to_owned())));
    }

    #[test]
    fn consuming_again_is_a_reconnect() {
        let mut state = BusState::new();
        let up = BusLink::Consuming { queue: "q".to_owned(), blocked: None };
        state.set(up.clone());
        assert_eq!((state.reconnects, state.is_consuming()), (0, true));
        state.set(broken("a"));
        state.set(up);
        assert_eq!((state.reconnects, state.trouble()), (1, None));
    }
}
