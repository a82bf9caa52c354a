//! External messages in a queue, and entries that cannot be read.

use lapin::types::{AMQPValue, FieldTable};
use loopabull_model::Settlement;
use loopabull_queue::{DeadLetter, Disposition, External, QueueError, Queues, Received, Verdict};
use loopabull_testbed::{Proxy, Rabbit, Vhost};

use crate::fixture::{
    config, consume, entry, judge, publish, receive, receive_any, wait_for, wait_for_depth,
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

async fn receive_externals(consumer: &mut loopabull_queue::Consumer) -> Vec<External> {
    match receive_any(consumer).await {
        Received::External(externals) => externals,
        Received::Delivery(delivery) => panic!("received an entry: {delivery:?}"),
    }
}

async fn receive_external(consumer: &mut loopabull_queue::Consumer) -> External {
    let mut externals = receive_externals(consumer).await;
    assert_eq!(externals.len(), 1, "{externals:?}");
    externals.remove(0)
}

async fn settle(external: &External, disposition: Disposition) {
    let settled = External::settle_all(&[(external, &disposition)]).await;
    assert!(matches!(settled[..], [Ok(())]), "{settled:?}");
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
    settle(&external, Disposition::Replace(vec![entry(1), entry(2)])).await;
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
        settle(&external, Disposition::DeadLetter("no JSON".into())).await;
        wait_for_depth(&queues, 0, 1).await;
        let letters = judge(&queues, |_| Verdict::Requeue).await;
        assert_eq!(letters[0].death.reason, "no JSON");
        assert_eq!(letters[0].body, b"\xff not JSON");
        assert!(letters[0].message.is_err());
    }
}

/// Publishes external messages with these bodies to a queue, whether or not it takes them.
async fn publish_bodies(vhost: &Vhost, queue: &str, bodies: impl IntoIterator<Item = u32>) {
    let connection = lapin::Connection::connect(&vhost.url(), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    for body in bodies {
        let body = body.to_string();
        let publish = channel.basic_publish(
            "".into(),
            queue.into(),
            Default::default(),
            body.as_bytes(),
            Default::default(),
        );
        publish.await.unwrap().await.unwrap();
    }
}

/// Returns the number that is the body of a message.
fn number(body: &[u8]) -> u32 {
    String::from_utf8_lossy(body).parse().unwrap()
}

/// A group has at most as many messages as the prefetch, and ends before an entry.
#[tokio::test]
async fn messages_that_wait_are_received_and_settled_together() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 20)).await.unwrap();
    publish_bodies(&vhost, "workers", 0..30).await;
    publish(&queues, [100]).await;
    publish_bodies(&vhost, "workers", 30..40).await;
    let mut consumer = consume(&queues).await;
    let (mut seen, mut entries, mut largest) = (Vec::new(), Vec::new(), 0);
    while seen.len() < 40 || entries.len() < 21 {
        let externals = match receive_any(&mut consumer).await {
            Received::External(externals) => externals,
            Received::Delivery(delivery) => {
                entries.push(delivery.entry.clone());
                delivery.settle(&Settlement::Ack).await.unwrap();
                continue;
            }
        };
        largest = largest.max(externals.len());
        let dispositions: Vec<_> = externals
            .iter()
            .map(|external| match number(&external.body) {
                even if even % 2 == 0 => Disposition::DeadLetter(even.to_string().into()),
                odd => Disposition::Replace(vec![entry(odd)]),
            })
            .collect();
        seen.extend(externals.iter().map(|external| number(&external.body)));
        let group: Vec<_> = externals.iter().zip(&dispositions).collect();
        let settled = External::settle_all(&group).await;
        assert!(settled.iter().all(Result::is_ok), "{settled:?}");
    }
    assert!((2..=20).contains(&largest), "{largest} messages in a group");
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    assert_eq!(entries[0], entry(100), "published before the entries that replace messages");
    assert_eq!(entries[1..], (0..20).map(|n| entry(2 * n + 1)).collect::<Vec<_>>());
    wait_for_depth(&queues, 0, 20).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    let found: Vec<_> = letters.iter().map(|letter| number(&letter.body)).collect();
    assert_eq!(found, (0..20).map(|n| 2 * n).collect::<Vec<_>>());
    assert!(letters.iter().all(|l| l.death.reason == number(&l.body).to_string()), "{letters:?}");
}

/// Nothing takes the place of a message that the broker redelivers.
#[tokio::test]
async fn messages_of_a_lost_connection_are_redelivered_and_not_settled() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let proxy = Proxy::start(rabbit.address());
    let queues = Queues::open(&config(&vhost.url_at(proxy.address()), 20)).await.unwrap();
    publish_bodies(&vhost, "workers", 0..10).await;
    let mut consumer = consume(&queues).await;
    let mut lost = Vec::new();
    while lost.len() < 10 {
        lost.extend(receive_externals(&mut consumer).await);
    }
    proxy.cut();
    let mut again = Vec::new();
    while again.len() < 10 {
        again.extend(receive_externals(&mut consumer).await);
    }
    let dead_letter = Disposition::DeadLetter("unwanted".into());
    let group: Vec<_> = lost.iter().map(|external| (external, &dead_letter)).collect();
    for settled in External::settle_all(&group).await {
        assert!(matches!(settled, Err(QueueError::LostClaim { .. })), "{settled:?}");
    }
    wait_for_depth(&queues, 0, 0).await;
    let group: Vec<_> = again.iter().map(|external| (external, &dead_letter)).collect();
    assert!(External::settle_all(&group).await.iter().all(Result::is_ok));
    wait_for_depth(&queues, 0, 10).await;
}

/// The queue of the dead letters is full. A message whose copy was refused stays in the work queue until it is settled again.
#[tokio::test]
async fn a_message_whose_copy_is_refused_is_settled_later() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let queues = Queues::open(&config(&vhost.url(), 20)).await.unwrap();
    let policy = ["set_policy", "-p", &vhost.name, "--apply-to", "queues", "full", "dead$"];
    let limits = "{\"max-length\":2,\"overflow\":\"reject-publish\"}";
    rabbit.ctl(&[&policy[..], &[limits]].concat());
    publish_bodies(&vhost, "workers.dead", 0..20).await;
    publish_bodies(&vhost, "workers", 0..20).await;
    let mut consumer = consume(&queues).await;
    let mut waiting = Vec::new();
    while waiting.len() < 20 {
        waiting.extend(receive_externals(&mut consumer).await);
    }
    let dead_letter = Disposition::DeadLetter("unwanted".into());
    let (mut found, mut refused) = (Vec::new(), 0);
    let is_ours = |letter: &DeadLetter| letter.death.reason == "unwanted";
    for _ in 0..100 {
        let group: Vec<_> = waiting.iter().map(|external| (external, &dead_letter)).collect();
        let settled = External::settle_all(&group).await;
        refused += settled.iter().filter(|settled| settled.is_err()).count();
        let mut is_refused = settled.iter().map(Result::is_err);
        waiting.retain(|_| is_refused.next().unwrap());
        // That makes room.
        let letters = judge(&queues, |_| Verdict::Drop).await;
        found.extend(
            letters.iter().filter(|letter| is_ours(letter)).map(|letter| number(&letter.body)),
        );
        if waiting.is_empty() {
            break;
        }
    }
    assert!(refused > 0 && waiting.is_empty(), "{refused} refused, {waiting:?}");
    // A window of which one message was refused is published again, so a message can have two dead letters, but never none.
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, (0..20).collect::<Vec<_>>());
    drop(consumer);
    wait_for(&queues, |depth| depth.waiting == 0).await;
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
