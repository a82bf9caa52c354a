//! The secrets of a task.
//!
//! Owns their values and the mask that hides them. The values go into files of a run, and nowhere else.

use std::collections::BTreeMap;

use loopabull_model::Mask;

/// The values of a task's secrets, and the mask that hides them.
#[derive(Debug, Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
    mask: Mask,
}

impl Secrets {
    /// Takes the values by their names.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self { mask: Mask::new(&values), values }
    }

    /// Returns the names and the values.
    pub(crate) fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Returns the mask for everything that is kept of a run.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }
}
