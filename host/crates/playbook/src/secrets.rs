//! The secrets of a task: their values, and the mask that removes the values from output.
//!
//! The module `folder` writes the values to files in the folder of a run. They are written nowhere else. This
//! module does not look secrets up: its caller passes in the values.

use std::collections::BTreeMap;

use loopabull_model::Mask;

/// The values of a task's secrets, and the mask that removes the values from output.
#[derive(Debug, Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
    mask: Mask,
}

impl Secrets {
    /// Creates the secrets from a map of names to values.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self { mask: Mask::new(&values), values }
    }

    /// Returns the values by the names of the secrets.
    pub(crate) fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Returns the mask for the stored output and results of a run.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }
}
