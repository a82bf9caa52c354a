//! Reads the number of unsettled messages from the JSON of `/api/v1/status` or `loopabull-host status --json`.

use serde_json::Value;

/// Returns the number of unsettled messages in the embedded queue, or `None` if the status does not contain
/// it.
pub(crate) fn unsettled(status: &Value) -> Option<u64> {
    let parts = ["waiting", "delayed", "held", "claimed"];
    let queues = status["queues"].as_array()?.iter();
    queues.map(|queue| parts.iter().map(|part| queue[part].as_u64()).sum::<Option<u64>>()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waiting_delayed_held_and_claimed_messages_of_all_queues_count() {
        let queue = json!({"waiting": 1, "delayed": 2, "held": 3, "claimed": 4, "dead": 9});
        assert_eq!(unsettled(&json!({"queues": [queue, queue]})), Some(20));
    }

    #[test]
    fn an_unknown_number_does_not_count_as_zero() {
        let queue = json!({"waiting": 0, "delayed": 0, "held": 0, "claimed": null});
        assert_eq!(unsettled(&json!({"queues": [queue]})), None);
        assert_eq!(unsettled(&Value::Null), None);
    }
}
