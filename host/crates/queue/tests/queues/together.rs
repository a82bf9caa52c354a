//! The guarantee of entries that are published together, for the conformance suite.

use loopabull_model::Settlement;

use crate::fixture::{Fixture, consume, entry, receive};

/// Large messages are published alone, and others of the same queue in windows before and after them.
pub(crate) async fn entries_that_are_published_together_keep_their_order(fixture: Fixture) {
    let queues = fixture.open().await;
    let mut entries: Vec<_> = (0..300).map(entry).collect();
    let large = format!(r#"{{"id":"large","topic":"a","body":{{"x":"{}"}}}}"#, "x".repeat(100_000));
    for number in [0, 150, 299] {
        entries[number].message = serde_json::from_str(&large).unwrap();
    }
    // Another queue in between.
    entries[7].queue = "slow".try_into().unwrap();
    let published = queues.publish_all(&entries.iter().collect::<Vec<_>>()).await;
    assert!(published.len() == 300 && published.iter().all(Result::is_ok), "{published:?}");
    let other = entries.remove(7);
    let mut consumer = consume(&queues).await;
    for expected in entries {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, expected);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    let mut slow = queues.consume(&other.queue).await.unwrap();
    assert_eq!(receive(&mut slow).await.entry, other);
    assert_eq!(queues.publish_all(&[]).await.len(), 0);
}
