//! What a queue promises, asked of both backends in the same words.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::HashSet;
use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Message, Settlement, TaskName};
use loopabull_queue::{Config, Consumer, Delivery, Queue};
use loopabull_testbed::{Rabbit, Vhost};
use tokio_util::sync::CancellationToken;

/// A place for one test's queue, which can be opened again and again.
enum Bed {
    Embedded(tempfile::TempDir),
    Amqp(Vhost),
}

impl Bed {
    async fn open(&self) -> Queue {
        let config = match self {
            Self::Embedded(folder) => Config::Embedded { file: folder.path().join("queue.db") },
            Self::Amqp(vhost) => {
                Config::Amqp { url: vhost.url(), name: Queue::DEFAULT_NAME.into(), prefetch: 1 }
            }
        };
        Queue::open(&config).await.unwrap()
    }
}

macro_rules! conformance {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Bed::Embedded(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod amqp {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Bed::Amqp(loopabull_testbed::Rabbit::shared().vhost())).await;
            })*
        }
    };
}

conformance! {
    what_was_published_is_delivered_unchanged
    deliveries_come_in_the_order_of_publishing
    an_acknowledged_delivery_is_gone
    a_retry_is_the_next_attempt
    a_dead_letter_leaves_the_queue_and_is_counted
    a_given_back_delivery_costs_no_attempt
    an_unsettled_delivery_comes_back_and_counts
    published_entries_survive_reopening
    workers_share_the_entries
    a_stopped_worker_receives_nothing
    an_entry_keeps_its_id_over_its_attempts
    a_retry_comes_before_what_was_published_later
}

fn message(number: u32) -> Message {
    let body = format!(
        r#"{{"msg_id":"m-{number}","headers":{{"h":"ä"}},"timestamp":7,"msg":{{"n":{number},"big":123456789012345678901234567890,"f":1.50}}}}"#
    );
    let envelope = Envelope::parse(&[b"org.example.thing", body.as_bytes()], 2).unwrap();
    Verifier::Off.verify(envelope).unwrap()
}

fn task() -> TaskName {
    "a.task".try_into().unwrap()
}

async fn publish(queue: &Queue, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        queue.publish(&message(number), &task()).await.unwrap();
    }
}

async fn receive(consumer: &mut Consumer) -> Delivery {
    let stop = CancellationToken::new();
    let receive = consumer.receive(&stop);
    let delivery = tokio::time::timeout(Duration::from_secs(30), receive).await;
    delivery.expect("a delivery within 30 s").unwrap().expect("nobody stopped it")
}

/// Waits until the queue shows as many waiting and dead entries: a broker counts a moment later.
async fn wait_for_depth(queue: &Queue, waiting: u64, dead: u64) {
    for _ in 0..300 {
        let depth = queue.depth().await.unwrap();
        if (depth.waiting, depth.dead) == (waiting, dead) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("expected {waiting} waiting and {dead} dead, found {:?}", queue.depth().await);
}

async fn what_was_published_is_delivered_unchanged(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let delivery = receive(&mut queue.consume().await.unwrap()).await;
    assert_eq!(delivery.message, message(1));
    assert_eq!(delivery.task, task());
    assert_eq!(delivery.attempt, 1);
}

async fn deliveries_come_in_the_order_of_publishing(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, 0..20).await;
    let mut consumer = queue.consume().await.unwrap();
    for number in 0..20 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message.id, message(number).id);
        queue.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
}

async fn an_acknowledged_delivery_is_gone(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1, 2]).await;
    wait_for_depth(&queue, 2, 0).await;
    let mut consumer = queue.consume().await.unwrap();
    for _ in 0..2 {
        let delivery = receive(&mut consumer).await;
        queue.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
    drop((consumer, queue));
    wait_for_depth(&bed.open().await, 0, 0).await;
}

async fn a_retry_is_the_next_attempt(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    for attempt in 1..=3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, attempt);
        assert_eq!(delivery.message, message(1));
        queue.settle(&delivery, &Settlement::Retry { after: Duration::ZERO }).await.unwrap();
    }
}

async fn a_dead_letter_leaves_the_queue_and_is_counted(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    let delivery = receive(&mut consumer).await;
    let reason = "it is no good: ä\n".into();
    queue.settle(&delivery, &Settlement::DeadLetter { reason }).await.unwrap();
    drop(consumer);
    wait_for_depth(&queue, 0, 1).await;
}

async fn a_given_back_delivery_costs_no_attempt(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    for _ in 0..3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        queue.settle(&delivery, &Settlement::GiveBack).await.unwrap();
    }
}

async fn an_unsettled_delivery_comes_back_and_counts(bed: Bed) {
    for attempt in 1..=3 {
        let queue = bed.open().await;
        if attempt == 1 {
            publish(&queue, [1]).await;
        }
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(receive(&mut consumer).await.attempt, attempt);
        // The process dies here: nothing is settled.
    }
}

async fn published_entries_survive_reopening(bed: Bed) {
    publish(&bed.open().await, 0..5).await;
    wait_for_depth(&bed.open().await, 5, 0).await;
}

async fn workers_share_the_entries(bed: Bed) {
    let queue = std::sync::Arc::new(bed.open().await);
    publish(&queue, 0..100).await;
    let stop = CancellationToken::new();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (queue, stop) = (queue.clone(), stop.clone());
        workers.spawn(async move {
            let mut consumer = queue.consume().await.unwrap();
            let mut seen = Vec::new();
            while let Some(delivery) = consumer.receive(&stop).await.unwrap() {
                seen.push(delivery.message.id.to_string());
                queue.settle(&delivery, &Settlement::Ack).await.unwrap();
            }
            seen
        });
    }
    wait_for_depth(&queue, 0, 0).await;
    stop.cancel();
    let seen: Vec<String> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(seen.len(), 100);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 100);
}

async fn a_stopped_worker_receives_nothing(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(consumer.receive(&stop).await.unwrap().is_none());
    drop(consumer);
    wait_for_depth(&queue, 1, 0).await;
}

async fn an_entry_keeps_its_id_over_its_attempts(bed: Bed) {
    let queue = bed.open().await;
    // Twice the same message: two entries.
    publish(&queue, [1, 1]).await;
    let mut consumer = queue.consume().await.unwrap();
    let first = receive(&mut consumer).await;
    queue.settle(&first, &Settlement::Retry { after: Duration::ZERO }).await.unwrap();
    let second = receive(&mut consumer).await;
    queue.settle(&second, &Settlement::Ack).await.unwrap();
    let again = receive(&mut consumer).await;
    assert_eq!(again.entry, first.entry);
    assert_ne!(again.entry, second.entry);
    assert_eq!(again.message.id, second.message.id);
}

async fn a_retry_comes_before_what_was_published_later(bed: Bed) {
    let queue = bed.open().await;
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    let first = receive(&mut consumer).await;
    // A clock of milliseconds must have moved on, or the two would have the same time.
    tokio::time::sleep(Duration::from_millis(5)).await;
    queue.settle(&first, &Settlement::Retry { after: Duration::ZERO }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    publish(&queue, [2, 3]).await;
    for number in [1, 2, 3] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.message.id, message(number).id);
        queue.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
}

/// What the broker has sent ahead has cost no attempt when a worker stops.
#[tokio::test]
async fn a_stopped_worker_gives_back_what_was_sent_ahead() {
    let vhost = Rabbit::shared().vhost();
    let config = Config::Amqp { url: vhost.url(), name: "workers".into(), prefetch: 10 };
    let queue = Queue::open(&config).await.unwrap();
    publish(&queue, 0..20).await;
    for _ in 0..3 {
        let mut consumer = queue.consume().await.unwrap();
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        consumer.stop().await.unwrap();
        queue.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
    wait_for_depth(&queue, 17, 0).await;
    let mut consumer = queue.consume().await.unwrap();
    for _ in 0..17 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        queue.settle(&delivery, &Settlement::Ack).await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_that_was_deleted_is_made_anew() {
    let vhost = Rabbit::shared().vhost();
    let name = vhost.name.clone();
    let bed = Bed::Amqp(vhost);
    let queue = bed.open().await;
    let mut consumer = queue.consume().await.unwrap();
    Rabbit::shared().ctl(&["delete_queue", "-p", &name, "workers"]);
    assert!(consumer.receive(&CancellationToken::new()).await.is_err());
    let mut consumer = queue.consume().await.unwrap();
    publish(&queue, [1]).await;
    assert_eq!(receive(&mut consumer).await.message, message(1));
}

/// A broker with an alarm takes what was sent when the alarm is over: once.
#[tokio::test]
async fn a_blocked_broker_is_told_of_and_takes_each_entry_once() {
    // A node of its own: an alarm stops every publisher of a node.
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start()));
    let bed = Bed::Amqp(rabbit.vhost());
    let queue = std::sync::Arc::new(bed.open().await);
    publish(&queue, [1]).await;
    assert_eq!(queue.trouble(), None);
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let blocked = tokio::spawn({
        let queue = queue.clone();
        async move { publish(&queue, [2]).await }
    });
    let mut trouble = None;
    for _ in 0..600 {
        trouble = queue.trouble();
        if trouble.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(trouble.unwrap().ends_with("takes no messages: memory or disk alarm"));
    assert!(!blocked.is_finished());
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    blocked.await.unwrap();
    wait_for_depth(&queue, 2, 0).await;
    assert_eq!(queue.trouble(), None);
}

#[tokio::test]
async fn only_one_process_works_a_queue_file() {
    let bed = Bed::Embedded(tempfile::tempdir().unwrap());
    let first = bed.open().await;
    let _consumer = first.consume().await.unwrap();
    let second = bed.open().await;
    let error = second.consume().await.unwrap_err().to_string();
    assert!(error.starts_with("another process works the queue file `"), "{error}");
    // But others may publish into it.
    publish(&second, [1]).await;
}

/// The first worker takes back what a dead process had claimed. Those that start beside it must not
/// lose to that what they have just claimed themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_start_together_take_back_only_what_was_left() {
    for _ in 0..20 {
        let bed = Bed::Embedded(tempfile::tempdir().unwrap());
        let dead = bed.open().await;
        publish(&dead, 0..10).await;
        let mut consumer = dead.consume().await.unwrap();
        for _ in 0..5 {
            receive(&mut consumer).await;
        }
        drop((consumer, dead));
        let queue = std::sync::Arc::new(bed.open().await);
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let queue = queue.clone();
            workers.spawn(async move {
                let mut consumer = queue.consume().await.unwrap();
                receive(&mut consumer).await.message.id
            });
        }
        let ids: HashSet<_> = workers.join_all().await.into_iter().collect();
        assert_eq!(ids.len(), 10, "each entry was claimed by one worker");
    }
}

#[tokio::test]
async fn rabbitmqctl_shows_the_queue_by_its_name_as_a_quorum_queue() {
    let vhost = Rabbit::shared().vhost();
    let name = vhost.name.clone();
    let bed = Bed::Amqp(vhost);
    publish(&bed.open().await, 0..3).await;
    let Bed::Amqp(vhost) = &bed else { unreachable!() };
    // A quorum queue tells the statistics its length every few seconds.
    vhost.wait_for_queues("workers\t3\nworkers.dead\t0");
    let kinds = Rabbit::shared().ctl(&["list_queues", "-p", &name, "name", "type", "durable"]);
    assert!(kinds.contains("workers\tquorum\ttrue"), "{kinds}");
}

/// Puts something that is no entry of ours into the queue. It must be set aside, and the next
/// delivered.
async fn check_set_aside(body: &[u8], headers: &[&str]) {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    let bed = Bed::Amqp(vhost);
    let queue = bed.open().await;
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let mut table = lapin::types::FieldTable::default();
    for &name in headers {
        table.insert(name.into(), lapin::types::AMQPValue::LongString("a".into()));
    }
    let properties = lapin::BasicProperties::default().with_headers(table);
    let options = lapin::options::BasicPublishOptions::default();
    let publish_raw = channel.basic_publish("".into(), "workers".into(), options, body, properties);
    publish_raw.await.unwrap().await.unwrap();
    publish(&queue, [1]).await;
    let mut consumer = queue.consume().await.unwrap();
    assert_eq!(receive(&mut consumer).await.message, message(1));
    wait_for_depth(&queue, 0, 1).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_set_aside_and_the_next_is_delivered() {
    check_set_aside(b"\xff not JSON", &[]).await;
}

/// Where a classic queue of the name is already there, it is used as it is.
#[tokio::test]
async fn a_classic_queue_that_was_there_before_us_works() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("workers".into(), options, Default::default()).await.unwrap();
    let bed = Bed::Amqp(vhost);
    publish(&bed.open().await, [1]).await;
    for attempt in [1, 2] {
        let queue = bed.open().await;
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(receive(&mut consumer).await.attempt, attempt);
        // The process dies here: nothing is settled.
    }
}

/// What is wrong with it is told in a header, which a frame of the broker must hold.
#[tokio::test]
async fn a_huge_key_in_a_body_that_cannot_be_read_stops_nobody() {
    let body = format!("{{\"{}\":1}}", "k".repeat(200_000));
    check_set_aside(body.as_bytes(), &["loopabull-entry", "loopabull-task"]).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_an_error_that_names_it() {
    let url = "amqp://user:secret@127.0.0.1:1/%2f".to_owned();
    let config = Config::Amqp { url, name: "workers".into(), prefetch: 1 };
    let error = Queue::open(&config).await.unwrap_err().to_string();
    assert_eq!(error, "RabbitMQ at `127.0.0.1:1//`: cannot connect");
}
