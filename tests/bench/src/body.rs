//! The body of all messages.

/// Returns a body of a kilobyte.
pub(crate) fn body() -> String {
    serde_json::json!({ "from": "ann", "text": "x".repeat(1000) }).to_string()
}
