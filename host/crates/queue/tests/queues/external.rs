//! What others put into a queue, and what cannot be read.

use lapin::types::{AMQPValue, FieldTable};
use loopabull_model::Settlement;
use loopabull_queue::{Foreign, Queues, Received, Verdict};
use loopabull_testbed::{Rabbit, Vhost};

use crate::bed::{
    config, consume, entry, judge, publish, receive, receive_any, wait_for_depth, workers,
};

/// Publishes bytes by another's hand.
pub(crate) async fn publish_raw(
    vhost: &Vhost,
    exchange: &str,
    key: &str,
    body: &[u8],
    headers: &[&str],
) {
    let url = vhost.url();
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    if !exchange.is_empty() {
        let bind = channel.queue_bind(
            "workers".into(),
            exchange.into(),
            "#".into(),
            Default::default(),
            FieldTable::default(),
        );
        bind.await.unwrap();
    }
    let mut table = FieldTable::default();
    for &name in headers {
        table.insert(name.into(), AMQPValue::LongString("a".into()));
    }
    let properties =
        lapin::BasicProperties::default().with_headers(table).with_message_id("their-id".into());
    let options = lapin::options::BasicPublishOptions::default();
    let publish = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    publish.await.unwrap().await.unwrap();
}

async fn receive_foreign(consumer: &mut loopabull_queue::Consumer) -> Foreign {
    match receive_any(consumer).await {
        Received::Foreign(foreign) => foreign,
        Received::Delivery(delivery) => panic!("{delivery:?}"),
    }
}

#[tokio::test]
async fn a_body_of_others_comes_with_its_routing_key_and_becomes_entries() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish_raw(&vhost, "amq.topic", "org.example.thing", b"{\"n\":1}", &["h"]).await;
    let mut consumer = consume(&queues).await;
    let foreign = receive_foreign(&mut consumer).await;
    assert_eq!(foreign.body, b"{\"n\":1}");
    assert_eq!(foreign.routing_key, "org.example.thing");
    assert_eq!(foreign.message_id.as_deref(), Some("their-id"));
    assert_eq!(foreign.headers, [("h".to_owned(), "a".to_owned())]);
    queues.replace(&foreign, &[entry(1), entry(2)]).await.unwrap();
    for number in [1, 2] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        queues.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
}

/// Its routing key and headers survive the dead letters, and so does each byte.
#[tokio::test]
async fn a_refused_body_of_others_can_be_requeued() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish_raw(&vhost, "amq.topic", "a.b", b"\xff not JSON", &["h"]).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..2 {
        let foreign = receive_foreign(&mut consumer).await;
        assert_eq!(
            (foreign.body.as_slice(), foreign.routing_key.as_str()),
            (&b"\xff not JSON"[..], "a.b")
        );
        assert!(foreign.headers.contains(&("h".to_owned(), "a".to_owned())), "{foreign:?}");
        queues.refuse(&workers(), &foreign, &"no JSON".into()).await.unwrap();
        wait_for_depth(&queues, 0, 1).await;
        let letters = judge(&queues, |_| Verdict::Requeue).await;
        assert_eq!(letters[0].burial.reason, "no JSON");
        assert_eq!(letters[0].body, b"\xff not JSON");
        assert!(letters[0].message.is_err());
    }
}

/// Puts an entry of ours that cannot be read into the queue. It must be set aside, and the next
/// delivered.
async fn check_set_aside(body: &[u8], reason: &str) {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish_raw(&vhost, "", "workers", body, &["loopabull-entry", "loopabull-task"]).await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    assert_eq!(receive(&mut consumer).await.entry, entry(1));
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert!(letters[0].burial.reason.starts_with(reason), "{:?}", letters[0].burial);
    assert_eq!(letters[0].body, body);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_set_aside_and_the_next_is_delivered() {
    check_set_aside(b"\xff not JSON", "undecodable: expected value").await;
}

/// What is wrong with it is told in a header, which a frame of the broker must hold.
#[tokio::test]
async fn a_huge_key_in_a_body_that_cannot_be_read_stops_nobody() {
    let body = format!("{{\"{}\":1}}", "k".repeat(200_000));
    check_set_aside(body.as_bytes(), "undecodable: unknown field `kkk").await;
}
