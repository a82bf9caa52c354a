//! The effects of a run: state changes and sent messages, which are kept back until the run succeeds.

use std::collections::BTreeMap;

use crate::Emission;

/// The effects of a run: state changes and sent messages, which are dropped unless the run succeeds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects {
    /// Messages that the run sends, in the order of sending.
    pub emitted: Vec<Emission>,
    pub state: StateChanges,
}

/// The keys of a task's state that a run read and wrote.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateChanges {
    /// Values that the run read, by key; `None` if the key did not exist. If a value has changed by the end
    /// of the run, the run is a conflict.
    pub read: BTreeMap<String, Option<Vec<u8>>>,
    /// Values that the run wrote, by key; `None` if the run deleted the key.
    pub written: BTreeMap<String, Option<Vec<u8>>>,
    /// Maximum size of the task's state, in bytes. Keys and values are counted.
    pub allowed: u64,
}

impl Effects {
    /// Returns true if the run sends no message and changes no state.
    pub fn is_empty(&self) -> bool {
        self.emitted.is_empty() && self.state.written.is_empty()
    }
}
