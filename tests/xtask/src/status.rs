//! What `/status` and `loopabull-host status --json` say, for those who wait for an empty queue.

use serde_json::Value;

/// Returns how many messages of the embedded queue are not settled, if the status tells.
pub(crate) fn unsettled(status: &Value) -> Option<u64> {
    let parts = ["waiting", "later", "held", "claimed"];
    let queues = status["queues"].as_array()?.iter();
    queues.map(|queue| parts.iter().map(|part| queue[part].as_u64()).sum::<Option<u64>>()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_parts_of_all_queues_count() {
        let queue = json!({"waiting": 1, "later": 2, "held": 3, "claimed": 4, "dead": 9});
        assert_eq!(unsettled(&json!({"queues": [queue, queue]})), Some(20));
    }

    #[test]
    fn what_is_unknown_is_not_nothing() {
        let queue = json!({"waiting": 0, "later": 0, "held": 0, "claimed": null});
        assert_eq!(unsettled(&json!({"queues": [queue]})), None);
        assert_eq!(unsettled(&Value::Null), None);
    }
}
