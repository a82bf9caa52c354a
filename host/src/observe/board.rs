//! Health and activity behind one handle, for the parts that still name their problems by text.

use std::sync::Arc;

use crate::observe::activity::{Activity, Counts, Link};
use crate::observe::health::{Health, Part};

/// Health and activity behind one handle.
#[derive(Debug, Default)]
pub(crate) struct Board {
    health: Arc<Health>,
    activity: Arc<Activity>,
}

impl Board {
    /// Makes a handle.
    pub(crate) fn new(health: &Arc<Health>, activity: &Arc<Activity>) -> Self {
        Self { health: Arc::clone(health), activity: Arc::clone(activity) }
    }

    /// See [`Activity::add_source`].
    pub(crate) fn add_source(&self, name: &str) {
        self.activity.add_source(name);
    }

    /// See [`Activity::receive`].
    pub(crate) fn receive(&self, source: &str) {
        self.activity.receive(source);
    }

    /// See [`Activity::set_link`].
    pub(crate) fn set_link(&self, source: &str, link: Link) {
        self.activity.set_link(source, link);
    }

    /// See [`Activity::count`].
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.activity.count(change);
    }

    /// Sets the problem of a part.
    pub(crate) fn set_trouble(&self, part: &str, problem: &str) {
        self.health.report(to_part(part), problem);
    }

    /// Removes the problem of a part.
    pub(crate) fn clear_trouble(&self, part: &str) {
        self.health.resolve(&to_part(part));
    }

    /// See [`Health::problems`].
    #[cfg(test)]
    #[allow(dead_code, reason = "only tests of ingest use it")]
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.health.problems()
    }
}

fn to_part(name: &str) -> Part {
    match name {
        "ingest" => Part::Ingest,
        "parked" | "quarantine" => Part::Quarantine,
        "trust" | "signers" => Part::Signers,
        "signatures" => Part::Signatures,
        source => Part::Source(source.to_owned()),
    }
}
