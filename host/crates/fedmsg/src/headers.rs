//! The headers of a message: names and values of limited total size.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Rejection;

/// The maximum size of the names and values of all headers together, in bytes.
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;

/// The maximum size of the headers as JSON text, in bytes. In JSON, one byte of a name or value can be
/// written as an escape of six bytes. This limit is checked before the text is parsed, because the parsed
/// tree can take fifty times as much memory as the text.
const MAX_WRITTEN_BYTES: usize = 6 * MAX_HEADER_BYTES;

/// Refuses headers whose JSON text is too long.
pub(crate) fn check_written(json: &str) -> Result<(), Rejection> {
    check_length(json.len(), MAX_WRITTEN_BYTES)
}

/// Returns the headers of a JSON object, sorted by name. A value that is not a string becomes its JSON text.
pub(crate) fn from_tree(tree: Option<BTreeMap<String, Value>>) -> Vec<(String, String)> {
    let headers = tree.into_iter().flatten().map(|(name, value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    });
    headers.collect()
}

/// Refuses headers whose names and values together are too long.
pub(crate) fn check(headers: &[(String, String)]) -> Result<(), Rejection> {
    let length = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    check_length(length, MAX_HEADER_BYTES)
}

fn check_length(length: usize, limit: usize) -> Result<(), Rejection> {
    if length > limit { Err(Rejection::HeadersTooLarge { length, limit }) } else { Ok(()) }
}
