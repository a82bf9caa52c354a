//! Effects: the changes that a run makes outside itself, which are kept back until it succeeds.

use std::collections::BTreeMap;

use crate::Emission;

/// The changes that a run makes outside itself. They take effect only if it succeeds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects {
    /// The messages that it sends, in its order.
    pub emitted: Vec<Emission>,
    pub state: StateChanges,
}

/// The reads and writes of a run in the state of its task.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateChanges {
    /// The values that it read; none for a key that did not exist. If one of them has changed when the
    /// run ends, the run is a conflict.
    pub read: BTreeMap<String, Option<Vec<u8>>>,
    /// The values that it wrote; none deletes the key.
    pub written: BTreeMap<String, Option<Vec<u8>>>,
    /// The maximum size of the task's state, keys and values together, in bytes.
    pub allowed: u64,
}

impl Effects {
    /// Returns true if the run changes nothing outside itself.
    pub fn is_empty(&self) -> bool {
        self.emitted.is_empty() && self.state.written.is_empty()
    }
}
