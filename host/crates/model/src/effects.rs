//! Effects: what a run wants to change outside itself, kept back until it has succeeded.

use std::collections::BTreeMap;

use crate::Emission;

/// What a run wants to change. Of a run that does not succeed nothing is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects {
    /// In the order in which they were sent.
    pub emitted: Vec<Emission>,
    pub state: StateChanges,
}

/// What a run read of its task's state, and what it wants to write there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateChanges {
    /// The values that it found, none for a key that was not there. If one of them is another when
    /// the run is over, the run was about something that is no longer so.
    pub read: BTreeMap<String, Option<Vec<u8>>>,
    /// The values that it leaves; none deletes the key.
    pub written: BTreeMap<String, Option<Vec<u8>>>,
    /// The most bytes, keys and values together, that the task may remember.
    pub allowed: u64,
}

impl Effects {
    /// Tells whether the run changes nothing outside itself.
    pub fn is_empty(&self) -> bool {
        self.emitted.is_empty() && self.state.written.is_empty()
    }
}
