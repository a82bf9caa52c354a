//! External messages in a queue, and entries that cannot be read.

use lapin::types::{AMQPValue, FieldTable};
use loopabull_model::Settlement;
use loopabull_queue::{External, Queues, Received, Verdict};
use loopabull_testbed::{Rabbit, Vhost};

use crate::fixture::{
    config, consume, entry, judge, publish, receive, receive_any, wait_for_depth,
};

/// Publishes a message to a vhost, as another program would.
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

async fn receive_external(consumer: &mut loopabull_queue::Consumer) -> External {
    match receive_any(consumer).await {
        Received::External(external) => external,
        Received::Delivery(delivery) => panic!("received an entry: {delivery:?}"),
    }
}

#[tokio::test]
async fn an_external_message_has_its_routing_key_and_is_replaced_by_entries() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish_raw(&vhost, "amq.topic", "org.example.thing", b"{\"n\":1}", &["h"]).await;
    let mut consumer = consume(&queues).await;
    let external = receive_external(&mut consumer).await;
    assert_eq!(external.body, b"{\"n\":1}");
    assert_eq!(external.routing_key, "org.example.thing");
    assert_eq!(external.message_id.as_deref(), Some("their-id"));
    assert_eq!(external.headers, [("h".to_owned(), "a".to_owned())]);
    external.replace(&[entry(1), entry(2)]).await.unwrap();
    for number in [1, 2] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

/// The dead letter keeps the routing key, the headers and every byte of the body.
#[tokio::test]
async fn a_refused_external_message_can_be_requeued() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    // The longest possible routing key, and headers as large as those of a bus can be.
    let key = &"a.b".repeat(85);
    let names: Vec<String> = (0..100).map(|n| format!("{n:0>250}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    publish_raw(&vhost, "amq.topic", key, b"\xff not JSON", &names).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..2 {
        let external = receive_external(&mut consumer).await;
        assert_eq!(
            (external.body.as_slice(), external.routing_key.as_str()),
            (&b"\xff not JSON"[..], key.as_str())
        );
        let has = |name: &&str| external.headers.contains(&((*name).to_owned(), "a".to_owned()));
        assert!(names.iter().all(has), "{external:?}");
        external.refuse(&"no JSON".into()).await.unwrap();
        wait_for_depth(&queues, 0, 1).await;
        let letters = judge(&queues, |_| Verdict::Requeue).await;
        assert_eq!(letters[0].death.reason, "no JSON");
        assert_eq!(letters[0].body, b"\xff not JSON");
        assert!(letters[0].message.is_err());
    }
}

/// Publishes an unreadable message with the headers of an entry. The message must become a dead letter, and
/// the next entry must be delivered.
async fn check_dead_lettered(body: &[u8], reason: &str) {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish_raw(&vhost, "", "workers", body, &["loopabull-entry", "loopabull-task"]).await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    assert_eq!(receive(&mut consumer).await.entry, entry(1));
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert!(letters[0].death.reason.starts_with(reason), "{:?}", letters[0].death);
    assert_eq!(letters[0].body, body);
}

#[tokio::test]
async fn an_unreadable_body_is_dead_lettered_and_the_next_entry_is_delivered() {
    check_dead_lettered(b"\xff not JSON", "undecodable: expected value").await;
}

/// The reason for the dead-lettering contains the key, and is stored in a header. The header must fit into
/// one frame.
#[tokio::test]
async fn a_huge_key_in_an_unreadable_body_does_not_stop_the_worker() {
    let body = format!("{{\"{}\":1}}", "k".repeat(200_000));
    check_dead_lettered(body.as_bytes(), "undecodable: unknown field `kkk").await;
}
