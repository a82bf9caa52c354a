//! What the oracle found, and how it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many ids of a set are named.
const NAMED: usize = 10;

/// What became of the messages of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many messages were attempted, confirmed, done, and found dead.
    pub attempted: usize,
    pub confirmed: usize,
    pub done: usize,
    pub dead: usize,
    /// Confirmed, and neither done nor dead.
    pub lost: BTreeSet<String>,
    /// Run or dead, and never attempted.
    pub unexpected: BTreeSet<String>,
    /// Done though never confirmed. The publisher cannot know; it is no fault.
    pub recovered: BTreeSet<String>,
    /// Done more than once, and how often.
    pub duplicated: BTreeMap<String, usize>,
    /// Run twice at the same time.
    pub overlapping: BTreeSet<String>,
    /// Run with a higher attempt, or more often, than is allowed.
    pub over_limit: BTreeSet<String>,
}

impl Verdict {
    /// Fails the test if anything was lost, with the whole verdict.
    ///
    /// # Panics
    ///
    /// If anything was lost.
    pub fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty(), "messages were lost\n{self}");
    }
}

/// The counts in one line; then a line for each set of what should not be that is not empty.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, confirmed, done, dead, .. } = self;
        write!(
            f,
            "{attempted} attempted, {confirmed} confirmed, {done} done, {dead} dead; {} lost, \
             {} unexpected, {} recovered, {} duplicated, {} overlapping, {} over limit",
            self.lost.len(),
            self.unexpected.len(),
            self.recovered.len(),
            self.duplicated.len(),
            self.overlapping.len(),
            self.over_limit.len(),
        )?;
        name(f, "lost", self.lost.iter().cloned())?;
        name(f, "unexpected", self.unexpected.iter().cloned())?;
        let times = |(id, times): (&String, &usize)| format!("{id} ({times} times)");
        name(f, "duplicated", self.duplicated.iter().map(times))?;
        name(f, "overlapping", self.overlapping.iter().cloned())?;
        name(f, "over limit", self.over_limit.iter().cloned())
    }
}

fn name(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    mut ids: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    if ids.len() == 0 {
        return Ok(());
    }
    let named: Vec<String> = ids.by_ref().take(NAMED).collect();
    write!(f, "\n{what}: {}", named.join(", "))?;
    match ids.len() {
        0 => Ok(()),
        rest => write!(f, " and {rest} more"),
    }
}
