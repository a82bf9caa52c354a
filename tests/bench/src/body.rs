//! The messages.

use serde_json::{Value, json};

/// The topic to which the component `greet` subscribes.
pub(crate) const TOPIC: &str = "org.example.prod.greeting.new";

/// Returns a body of a kilobyte.
pub(crate) fn body() -> String {
    json!({ "from": "ann", "text": "x".repeat(1000) }).to_string()
}

/// Returns a fedmsg message of about a kilobyte.
pub(crate) fn bus_message(topic: &str, number: u32) -> Value {
    let msg = json!({"from": "ann", "text": "x".repeat(900)});
    let id = format!("2026-{number:08}");
    json!({"topic": topic, "msg_id": id, "timestamp": 1_790_000_000, "i": number, "msg": msg})
}
