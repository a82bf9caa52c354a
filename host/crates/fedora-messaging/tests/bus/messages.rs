//! The content of deliveries, and the conditions under which messages leave the queue.

use loopabull_fedora_messaging::{Binding, Bus, BusState, Settled};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, number, receive, take, wait_for, wait_for_problem};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_contains_all_properties_of_the_message() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    let id = fixture.publisher.publish(&json!({
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
    assert_eq!(delivery.ack().await, Settled::Sent);
    fixture.end(bus, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_match_topics_by_their_wildcards() {
    let mut fixture = Fixture::shared();
    let mut config = fixture.config();
    let keys = ["org.*.prod.#", "exactly.this"].map(str::to_owned).to_vec();
    config.bindings = vec![Binding { routing_keys: keys, ..Binding::default() }];
    let mut bus = fixture.start(&config).await;
    let topics = [
        "org.a.prod",
        "org.a.stg.x",
        "org.a.prod.x.y",
        "exactly.this.not",
        "org.a.b.prod.x",
        "exactly.this",
    ];
    for topic in topics {
        fixture.publisher.publish(&json!({"topic": topic, "body": {}}));
    }
    for expected in ["org.a.prod", "org.a.prod.x.y", "exactly.this"] {
        let delivery = receive(&mut bus).await;
        assert_eq!(delivery.routing_key, expected);
        assert_eq!(delivery.ack().await, Settled::Sent);
    }
    fixture.end(bus, 0).await;
}

/// A host that dies before its work queue has confirmed the entries has not acknowledged the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_messages_are_redelivered() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.numbers(0..5);
    let first = receive(&mut bus).await;
    assert_eq!(number(&first), 0);
    // The broker has sent as many messages as the prefetch allows, which is 3 of 5.
    fixture.wait_for_ready(2).await;
    drop(bus);
    let mut bus = fixture.start(&fixture.config()).await;
    for expected in 0..3 {
        let delivery = receive(&mut bus).await;
        assert_eq!((number(&delivery), delivery.redelivered), (expected, true));
        assert_eq!(delivery.ack().await, Settled::Sent);
    }
    take(&mut bus, 3..5).await;
    fixture.end(bus, 0).await;
    // The connection that received `first` is closed, and with it the channel of this delivery.
    assert_eq!(first.ack().await, Settled::ChannelGone);
}

/// While the bus stops, a received delivery can still be acknowledged. The prefetched deliveries are
/// requeued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_stops_requeues_its_prefetched_messages() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.numbers(0..5);
    let [zero, one] = [receive(&mut bus).await, receive(&mut bus).await];
    bus.stop().await;
    assert!(bus.receive(&CancellationToken::new()).await.is_none());
    assert_eq!(one.requeue().await, Settled::Sent);
    fixture.wait_for_ready(4).await;
    assert_eq!(zero.ack().await, Settled::Sent);
    fixture.end(bus, 4).await;
    let mut bus = fixture.start(&fixture.config()).await;
    take(&mut bus, 1..5).await;
    fixture.end(bus, 0).await;
}

/// If the encoding is unknown, the Python consumer exits, and receives the same message again after a
/// restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_text_is_delivered_once() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    for (encoding, bytes) in [(Some("xyz"), "61"), (Some("hex"), "3631"), (None, "61ff")] {
        let properties = json!({"content_encoding": encoding, "message_id": "their-id"});
        fixture.publisher.publish(&json!({"topic": "a.b", "raw": bytes, "properties": properties}));
    }
    fixture.publisher.publish(&json!({"topic": "a.b", "raw": "7b7d"}));
    for expected in [
        Err("the content encoding `xyz` is not supported"),
        Err("the content encoding `hex` is not supported"),
        Err("byte 1 of the body is not valid `utf-8`"),
        // A body without headers and without an encoding is also text.
        Ok("{}"),
    ] {
        let delivery = receive(&mut bus).await;
        let text = delivery.text().map_err(|error| error.to_string());
        assert_eq!(text.as_deref().map_err(String::as_str), expected);
        assert!(!delivery.redelivered);
        assert_eq!(delivery.ack().await, Settled::Sent);
    }
    assert_eq!(bus.state().borrow().reconnects, 0);
    fixture.end(bus, 0).await;
}

/// By default, the Python package uses a new queue for each connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unnamed_queue_is_named_by_the_broker_and_deleted_with_the_connection() {
    let mut fixture = Fixture::shared();
    let mut config = fixture.config();
    config.queue = loopabull_fedora_messaging::BusQueue::default();
    let mut bus = fixture.start(&config).await;
    fixture.publisher.number(1);
    assert_eq!(number(&receive(&mut bus).await), 1);
    assert!(fixture.vhost.list_queues().starts_with("amq.gen-"));
    bus.close().await;
    fixture.vhost.wait_for_queues("");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passive_bus_waits_for_its_queue() {
    let mut fixture = Fixture::shared();
    let mut config = fixture.config();
    config.passive_declares = true;
    let mut bus = Bus::start(&config).unwrap();
    let problem = wait_for_problem(&bus, "cannot find the queue").await;
    assert!(problem.contains("no queue '00000000-"), "{problem}");
    assert_eq!(fixture.vhost.list_queues(), "");
    // Another consumer, which has the permission, creates the queue.
    fixture.start(&fixture.config()).await.close().await;
    wait_for(&bus, BusState::is_consuming).await;
    fixture.publisher.number(1);
    take(&mut bus, [1]).await;
    fixture.check_prefetch(&mut bus).await;
}

/// Name of the environment variable with the nesting depth of the header. It is set by
/// `the_deepest_header_of_a_frame_needs_a_larger_stack`.
const DEPTH: &str = "LOOPABULL_TEST_DEPTH";

/// Any program may publish a message with deeply nested headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deeply_nested_header_does_no_harm() {
    let depth: u32 = std::env::var(DEPTH).map_or(100, |depth| depth.parse().unwrap());
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.publish(&json!({"topic": "a.b", "raw": "7b7d", "nested": depth}));
    let delivery = receive(&mut bus).await;
    assert!(delivery.header("nested").unwrap().starts_with("[[[["));
    assert_eq!(delivery.ack().await, Settled::Sent);
    fixture.end(bus, 0).await;
}

/// Lapin parses nested values recursively, and a stack overflow kills the process. The stack size in this
/// test is enough for the deepest header that fits into a frame of 128 KiB.
#[test]
fn the_deepest_header_of_a_frame_needs_a_larger_stack() {
    crate::fixture::run_again(
        "messages::a_deeply_nested_header_does_no_harm",
        &[(DEPTH, "26000"), ("RUST_MIN_STACK", "536870912")],
    );
}
