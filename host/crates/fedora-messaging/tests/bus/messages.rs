//! What comes out of a bus, and when it is gone from it.

use loopabull_queue::{Answered, Binding, Bus, BusState};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, number, receive, take, wait_for, wait_for_trouble};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_comes_with_all_that_stands_in_it() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    let id = bed.publisher.publish(&json!({
        "topic": "org.example.prod.thing.ä",
        "body": {"n": 1, "text": "ä€😀", "big": 12345678901234567890_u64},
        "severity": "warning",
        "headers": {"x-text": "t", "x-flag": true, "x-list": [1, {"a": "b"}], "x-none": null},
        "priority": 3,
    }));
    let delivery = receive(&mut bus).await;
    assert_eq!(delivery.routing_key, "org.example.prod.thing.ä");
    assert_eq!(delivery.exchange, "amq.topic");
    assert_eq!(delivery.message_id.as_deref(), Some(id.as_str()));
    assert_eq!(delivery.header("fedora_messaging_severity"), Some("30"));
    assert_eq!(delivery.header("fedora_messaging_schema"), Some("base.message"));
    assert_eq!(delivery.header("x-text"), Some("t"));
    assert_eq!(delivery.header("x-flag"), Some("true"));
    assert_eq!(delivery.header("x-list"), Some(r#"[1,{"a":"b"}]"#));
    assert_eq!(delivery.header("x-none"), Some("null"));
    assert!(delivery.header("sent-at").unwrap().contains("+00:00"), "{:?}", delivery.headers);
    assert_eq!(delivery.content_type.as_deref(), Some("application/json"));
    assert_eq!(delivery.content_encoding.as_deref(), Some("utf-8"));
    assert_eq!(delivery.priority, Some(3));
    assert!(!delivery.redelivered);
    let body: serde_json::Value = serde_json::from_str(&delivery.text().unwrap()).unwrap();
    assert_eq!(body["text"], "ä€😀");
    assert_eq!(body["big"].to_string(), "12345678901234567890");
    assert_eq!(delivery.ack().await, Answered::Told);
    bed.end(bus, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_take_what_their_wildcards_say() {
    let mut bed = Bed::shared();
    let mut config = bed.config();
    let keys = ["org.*.prod.#", "exactly.this"].map(str::to_owned).to_vec();
    config.bindings = vec![Binding { routing_keys: keys, ..Binding::default() }];
    let mut bus = bed.start(&config).await;
    let topics = [
        "org.a.prod",
        "org.a.stg.x",
        "org.a.prod.x.y",
        "exactly.this.not",
        "org.a.b.prod.x",
        "exactly.this",
    ];
    for topic in topics {
        bed.publisher.publish(&json!({"topic": topic, "body": {}}));
    }
    for expected in ["org.a.prod", "org.a.prod.x.y", "exactly.this"] {
        let delivery = receive(&mut bus).await;
        assert_eq!(delivery.routing_key, expected);
        assert_eq!(delivery.ack().await, Answered::Told);
    }
    bed.end(bus, 0).await;
}

/// A host that dies before its own queue has confirmed has acknowledged nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_comes_again() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.numbers(0..5);
    let first = receive(&mut bus).await;
    assert_eq!(number(&first), 0);
    // The prefetch, and not one more.
    bed.wait_for_ready(2).await;
    drop(bus);
    let mut bus = bed.start(&bed.config()).await;
    for expected in 0..3 {
        let delivery = receive(&mut bus).await;
        assert_eq!((number(&delivery), delivery.redelivered), (expected, true));
        assert_eq!(delivery.ack().await, Answered::Told);
    }
    take(&mut bus, 3..5).await;
    bed.end(bus, 0).await;
    // It was of a channel that is gone.
    assert_eq!(first.ack().await, Answered::ComesAgain);
}

/// What is in the host's hands while it stops is still acknowledged, and the rest goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_stops_gives_back_what_nobody_has() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.numbers(0..5);
    let [zero, one] = [receive(&mut bus).await, receive(&mut bus).await];
    bus.stop().await;
    assert!(bus.receive(&CancellationToken::new()).await.is_none());
    assert_eq!(one.give_back().await, Answered::Told);
    bed.wait_for_ready(4).await;
    assert_eq!(zero.ack().await, Answered::Told);
    bed.end(bus, 4).await;
    let mut bus = bed.start(&bed.config()).await;
    take(&mut bus, 1..5).await;
    bed.end(bus, 0).await;
}

/// The Python consumer ends at an unknown encoding, and finds the message again when it is restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_text_comes_out_and_does_not_loop() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    for (encoding, bytes) in [(Some("xyz"), "61"), (Some("hex"), "3631"), (None, "61ff")] {
        let properties = json!({"content_encoding": encoding, "message_id": "their-id"});
        bed.publisher.publish(&json!({"topic": "a.b", "raw": bytes, "properties": properties}));
    }
    bed.publisher.publish(&json!({"topic": "a.b", "raw": "7b7d"}));
    for expected in [
        Err("the content encoding `xyz` is not known"),
        Err("the content encoding `hex` is not known"),
        Err("byte 1 of the body is not `utf-8`"),
        // Neither headers nor an encoding: text all the same.
        Ok("{}"),
    ] {
        let delivery = receive(&mut bus).await;
        let text = delivery.text().map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
        assert!(!delivery.redelivered);
        assert_eq!(delivery.ack().await, Answered::Told);
    }
    assert_eq!(bus.state().borrow().reconnects, 0);
    bed.end(bus, 0).await;
}

/// As the Python package has it where nothing is configured: another queue at each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_name_is_named_by_the_broker_and_goes_with_the_connection() {
    let mut bed = Bed::shared();
    let mut config = bed.config();
    config.queue = loopabull_queue::BusQueue::default();
    let mut bus = bed.start(&config).await;
    bed.publisher.number(1);
    assert_eq!(number(&receive(&mut bus).await), 1);
    assert!(bed.vhost.list_queues().starts_with("amq.gen-"));
    bus.close().await;
    bed.vhost.wait_for_queues("");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passive_bus_waits_for_its_queue() {
    let mut bed = Bed::shared();
    let mut config = bed.config();
    config.passive_declares = true;
    let mut bus = Bus::start(&config).unwrap();
    let trouble = wait_for_trouble(&bus, "cannot find the queue").await;
    assert!(trouble.contains("no queue '00000000-"), "{trouble}");
    assert_eq!(bed.vhost.list_queues(), "");
    // Whoever may make it makes it.
    bed.start(&bed.config()).await.close().await;
    wait_for(&bus, BusState::is_consuming).await;
    bed.publisher.number(1);
    take(&mut bus, [1]).await;
    bed.check_prefetch(&mut bus).await;
}

/// Names how deep, for the process that the second test starts.
const DEPTH: &str = "LOOPABULL_TEST_DEPTH";

/// Whoever may publish may set headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_deep_do_no_harm() {
    let depth: u32 = std::env::var(DEPTH).map_or(100, |depth| depth.parse().unwrap());
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.publish(&json!({"topic": "a.b", "raw": "7b7d", "nested": depth}));
    let delivery = receive(&mut bus).await;
    assert!(delivery.header("nested").unwrap().starts_with("[[[["));
    assert_eq!(delivery.ack().await, Answered::Told);
    bed.end(bus, 0).await;
}

/// Lapin reads them by recursion, and an overflown stack is the end of the process. What a frame of
/// 128 KiB can hold fits into this much of it.
#[test]
fn headers_as_deep_as_a_frame_allows_need_a_larger_stack() {
    crate::bed::run_again(
        "messages::headers_that_are_deep_do_no_harm",
        &[(DEPTH, "26000"), ("RUST_MIN_STACK", "536870912")],
    );
}
