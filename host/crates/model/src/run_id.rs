//! The id of a run.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The id of a run.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct RunId(String);

impl RunId {
    /// Makes an id of a text. The text is not checked, because the journal simply finds no run for an invalid
    /// id.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
