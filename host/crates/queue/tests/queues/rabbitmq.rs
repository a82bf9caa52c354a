//! Behaviour that only the queues in RabbitMQ have, and their behaviour after faults of the broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::Settlement;
use loopabull_queue::{
    AmqpError, Backend, Disposition, External, QueueError, Queues, Received, Verdict,
};
use loopabull_testbed::{Proxy, Rabbit};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    Fixture, Storage, config, consume, entry, judge, publish, receive, receive_any, wait_for_depth,
    workers,
};

/// When a worker stops, it requeues its prefetched entries. Being requeued must not count as an attempt.
#[tokio::test]
async fn a_stopped_worker_requeues_its_prefetched_entries() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 10)).await.unwrap();
    publish(&queues, 0..20).await;
    for _ in 0..3 {
        let mut consumer = consume(&queues).await;
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        consumer.stop().await.unwrap();
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    wait_for_depth(&queues, 17, 0).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..17 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

/// If the queue is deleted, the broker cancels the consumer. Lapin's stream then ends, but the channel stays
/// open.
#[tokio::test]
async fn a_deleted_queue_is_created_again() {
    let vhost = Rabbit::shared().vhost();
    let queues = Arc::new(Queues::open(&config(&vhost.url(), 1)).await.unwrap());
    let mut consumer = consume(&queues).await;
    publish(&queues, [0]).await;
    let delivery = receive(&mut consumer).await;
    delivery.settle(&Settlement::Ack).await.unwrap();
    let waiting = tokio::spawn(async move { (receive(&mut consumer).await, consumer) });
    for queue in ["workers", "workers.dead", "workers.wait.1s"] {
        vhost.delete_queue(queue);
    }
    // Either the publisher or the worker creates the missing queue.
    publish(&queues, [1]).await;
    let (delivery, mut consumer) = waiting.await.unwrap();
    assert_eq!(delivery.entry, entry(1));
    // The other deleted queues are created when they are needed.
    let retry = Settlement::Retry { after: Duration::from_millis(100) };
    delivery.settle(&retry).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.attempt, 2);
    delivery.settle(&Settlement::dead_letter("x")).await.unwrap();
    wait_for_depth(&queues, 0, 1).await;
}

/// Another host creates the deleted queue again, while a run is in progress. Its late acknowledgement does not
/// settle an entry of the new queue.
#[tokio::test]
async fn a_queue_that_another_host_creates_again_is_consumed() {
    let vhost = Rabbit::shared().vhost();
    let other = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let mut consumer = consume(&queues).await;
    for round in [0, 3, 6] {
        publish(&other, [round]).await;
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(round));
        vhost.delete_queue("workers");
        publish(&other, [round + 1, round + 2]).await;
        drop(delivery.settle(&Settlement::Ack).await);
        for number in [round + 1, round + 2] {
            let delivery = receive(&mut consumer).await;
            assert_eq!(delivery.entry, entry(number));
            delivery.settle(&Settlement::Ack).await.unwrap();
        }
    }
}

/// Another program creates the deleted queue again at once. The broker then delivers nothing to the consumer.
#[tokio::test]
async fn a_subscription_without_deliveries_is_renewed() {
    let vhost = Rabbit::shared().vhost();
    let mut config = config(&vhost.url(), 1);
    let Backend::RabbitMq(rabbitmq) = &mut config.backend else { panic!("it is RabbitMQ") };
    rabbitmq.idle_limit = Duration::from_secs(3);
    let queues = Queues::open(&config).await.unwrap();
    let mut consumer = consume(&queues).await;
    publish(&queues, [0]).await;
    receive(&mut consumer).await.settle(&Settlement::Ack).await.unwrap();
    let stop = CancellationToken::new();
    let waiting = tokio::spawn(async move {
        let received = consumer.receive(&stop).await;
        matches!(received, Ok(Some(Received::Delivery(delivery))) if delivery.entry == entry(1))
    });
    vhost.delete_queue("workers");
    // The start of a host creates missing queues without delay.
    let other = Queues::open(&config).await.unwrap();
    publish(&other, [1]).await;
    let received = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(received.expect("the subscription is renewed").unwrap());
}

/// The broker keeps refusing messages on a channel after the limit of the full queue was removed (seen on
/// 3.10.8). The publisher must therefore replace the channel.
#[tokio::test]
async fn the_removal_of_a_length_limit_is_noticed() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let ctl = |arguments: &[&str]| Rabbit::shared().ctl(arguments);
    let name = ["full", "^workers$", "{\"max-length\":3}"];
    ctl(&[&["set_policy", "-p", &vhost.name, "--apply-to", "queues"][..], &name].concat());
    let mut number = 0;
    let error = loop {
        match queues.publish(&entry(number)).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "the broker accepts messages beyond the length limit");
    };
    let is_refused = matches!(error, QueueError::Amqp(AmqpError::NotConfirmed { .. }));
    assert!(is_refused, "{error}");
    ctl(&["clear_policy", "-p", &vhost.name, "full"]);
    let retry = async {
        while queues.publish(&entry(number)).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), retry)
        .await
        .expect("the broker accepts messages after the limit was removed");
}

/// The new connection must set the prefetch again, which lapin's own recovery does not do. A delivery of the
/// old connection must not be settled on the new connection.
#[tokio::test]
async fn a_closed_connection_is_opened_again_with_its_prefetch() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let queues = Arc::new(Queues::open(&config(&vhost.url(), 3)).await.unwrap());
    let prefetches = || {
        rabbit.ctl(&["list_consumers", "--no-table-headers", "-p", &vhost.name, "prefetch_count"])
    };
    let mut consumer = consume(&queues).await;
    publish(&queues, [1]).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(prefetches(), "3\n");
    rabbit.ctl(&["close_all_connections", "-p", &vhost.name, "a test"]);
    let error = loop {
        // Settling returns other errors until the supervisor has noticed that the connection is lost.
        match delivery.settle(&Settlement::Retry { after: Duration::from_secs(1) }).await {
            Err(QueueError::LostClaim { message }) => break message,
            Ok(()) => panic!("the delivery was settled on a closed connection"),
            Err(error) => tracing::info!("{error}"),
        }
    };
    assert_eq!(error, "m-1");
    let again = receive(&mut consumer).await;
    assert_eq!((&again.entry, again.attempt), (&entry(1), 1));
    assert_eq!(prefetches(), "3\n");
}

#[tokio::test]
async fn the_queues_reconnect_to_a_broker_that_was_killed() {
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start()));
    let vhost = rabbit.vhost();
    let queues = Arc::new(Queues::open(&config(&vhost.url(), 1)).await.unwrap());
    publish(&queues, 0..10).await;
    let mut consumer = consume(&queues).await;
    let first = receive(&mut consumer).await;
    first.settle(&Settlement::Ack).await.unwrap();
    rabbit.kill();
    let waiting = tokio::spawn(async move {
        let delivery = receive(&mut consumer).await;
        (delivery, consumer)
    });
    // The first problem may be that of the worker, which cannot consume. We wait for the problem of the
    // connection.
    while !queues.problem().is_some_and(|problem| problem.contains(": not connected: ")) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rabbit.restart();
    let (mut delivery, mut consumer) = waiting.await.unwrap();
    let mut seen = BTreeSet::new();
    loop {
        // A claim from before the kill is lost, and the broker redelivers its entry.
        match delivery.settle(&Settlement::Ack).await {
            Ok(()) => drop(seen.insert(delivery.entry.id.to_string())),
            Err(QueueError::LostClaim { .. }) => (),
            Err(error) => panic!("{error}"),
        }
        if (1..10).all(|number| seen.contains(entry(number).id.as_str())) {
            break;
        }
        delivery = receive(&mut consumer).await;
    }
    assert_eq!(queues.problem(), None);
}

/// During an alarm, the broker accepts acknowledgements but no messages. After the alarm, the broker must
/// accept the waiting message exactly once.
#[tokio::test]
async fn a_blocked_broker_is_reported_and_accepts_each_entry_once() {
    // This test has a node of its own, because an alarm blocks all publishers of a node.
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start()));
    let fixture = Fixture { storage: Storage::RabbitMq(rabbit.vhost()), prefetch: 1 };
    let queues = Arc::new(fixture.open().await);
    publish(&queues, [1]).await;
    assert_eq!(queues.problem(), None);
    rabbit.set_memory_alarm(true);
    let blocked = tokio::spawn({
        let queues = queues.clone();
        async move { publish(&queues, [2]).await }
    });
    let mut problem = None;
    for _ in 0..600 {
        problem = queues.problem();
        if problem.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(problem.unwrap().ends_with("accepts no messages: memory or disk alarm"));
    let delivery = receive(&mut consume(&queues).await).await;
    delivery.settle(&Settlement::Ack).await.unwrap();
    assert!(!blocked.is_finished());
    rabbit.set_memory_alarm(false);
    blocked.await.unwrap();
    let mut consumer = consume(&queues).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry, entry(2));
    delivery.settle(&Settlement::Ack).await.unwrap();
    // If entry 2 was accepted twice, its second copy is delivered before entry 3.
    publish(&queues, [3]).await;
    assert_eq!(receive(&mut consumer).await.entry, entry(3));
    assert_eq!(queues.problem(), None);
}

#[tokio::test]
async fn rabbitmqctl_shows_the_queues_by_their_names() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish(&queues, 0..3).await;
    // We wait, because a quorum queue updates its statistics every few seconds.
    vhost.wait_for_queues(
        "workers\t3\nworkers.dead\t0\nworkers.retry\t0\nworkers.wait.10m\t0\nworkers.wait.10s\t0\n\
         workers.wait.1h\t0\nworkers.wait.1m\t0\nworkers.wait.1s\t0",
    );
    let kinds =
        Rabbit::shared().ctl(&["list_queues", "-p", &vhost.name, "name", "type", "durable"]);
    assert!(kinds.contains("workers\tquorum\ttrue"), "{kinds}");
    assert_eq!(kinds.matches("workers").count(), 8, "{kinds}");
}

/// An existing classic queue with the same name is used as it is.
#[tokio::test]
async fn an_existing_classic_queue_works() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions::durable();
    channel.queue_declare("workers".into(), options, Default::default()).await.unwrap();
    publish(&Queues::open(&config(&vhost.url(), 1)).await.unwrap(), [1]).await;
    for _ in [1, 2] {
        let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
        let mut consumer = consume(&queues).await;
        assert_eq!(receive(&mut consumer).await.entry, entry(1));
        // The queues are dropped here without a settlement, as if the process died.
    }
}

/// If every host dies while it processes an entry, the broker dead-letters the entry at the delivery limit.
#[tokio::test]
async fn an_entry_beyond_the_delivery_limit_becomes_a_dead_letter() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    publish(&queues, [1]).await;
    for _ in 0..=100 {
        receive(&mut consume(&queues).await).await;
    }
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert_eq!(letters[0].id, entry(1).id);
    assert_eq!(letters[0].death.reason, "dead-lettered by the broker: delivery_limit");
}

#[tokio::test]
async fn only_one_worker_consumes_a_queue_in_exclusive_order() {
    let vhost = Rabbit::shared().vhost();
    let mut config = config(&vhost.url(), 1);
    config.queues[0].exclusive_order = true;
    let (one, two) = (Queues::open(&config).await.unwrap(), Queues::open(&config).await.unwrap());
    let (mut first, mut second) = (consume(&one).await, consume(&two).await);
    publish(&one, 0..4).await;
    for number in 0..2 {
        let delivery = receive(&mut first).await;
        assert_eq!(delivery.entry, entry(number));
        let stop = CancellationToken::new();
        let stop_soon = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stop.cancel();
        };
        let (other, ()) = tokio::join!(second.receive(&stop), stop_soon);
        assert!(other.unwrap().is_none());
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    // The second worker takes over and receives the remaining entries in order.
    first.close().await.unwrap();
    for number in 2..4 {
        let delivery = receive(&mut second).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

/// An existing queue without `x-single-active-consumer` cannot provide an exclusive order.
#[tokio::test]
async fn an_exclusive_order_that_the_queue_cannot_provide_is_an_error() {
    let vhost = Rabbit::shared().vhost();
    let mut config = config(&vhost.url(), 1);
    drop(Queues::open(&config).await.unwrap());
    config.queues[0].exclusive_order = true;
    let error = Queues::open(&config).await.unwrap_err().to_string();
    assert!(error.contains("was declared without `exclusive_order`"), "{error}");
}

/// Eight publishers work at the same time, four of them with missing queues. Each publish must get the
/// confirm or the return of its own message.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_publish_has_its_own_confirm() {
    let vhost = Rabbit::shared().vhost();
    let queues = Arc::new(Queues::open(&config(&vhost.url(), 1)).await.unwrap());
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..8 {
        let queues = queues.clone();
        publishers.spawn(async move {
            for number in 0..50 {
                let mut entry = entry(publisher * 100 + number);
                if publisher % 2 == 1 {
                    // The queue is missing. The publisher creates it after the broker has returned the
                    // message.
                    entry.queue = format!("other-{publisher}-{number}").try_into().unwrap();
                }
                queues.publish(&entry).await.unwrap();
            }
        });
    }
    publishers.join_all().await;
    wait_for_depth(&queues, 200, 0).await;
    for publisher in [1, 3, 5, 7] {
        for number in 0..50 {
            let queue = format!("other-{publisher}-{number}").try_into().unwrap();
            assert_eq!(queues.depth(&queue).await.unwrap().waiting, 1, "queue `{queue}`");
        }
    }
}

/// The broker closes the channel on which we ask for a missing queue. After 2,047 channels their numbers are used
/// again.
#[tokio::test]
async fn a_missing_queue_disturbs_no_later_channel() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let missing = "missing".try_into().unwrap();
    queues.depth(&missing).await.unwrap();
    for _ in 0..300 {
        queues.depth(&workers()).await.unwrap();
    }
    // Now each number was used for a missing queue. The connection is replaced.
    for _ in 0..300 {
        drop(queues.depth(&missing).await);
    }
    publish(&queues, [1]).await;
    wait_for_depth(&queues, 1, 0).await;
}

/// Any program may publish a message with large headers. If the headers do not fit into a frame, we do not
/// keep them.
#[tokio::test]
async fn headers_that_do_not_fit_into_a_frame_do_not_end_the_connection() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let names: Vec<String> = (0..480).map(|n| format!("{n:0>250}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    crate::external::publish_raw(&vhost, "", "workers", b"x", &names).await;
    let mut consumer = consume(&queues).await;
    let Received::External(externals) = receive_any(&mut consumer).await else {
        panic!("received an entry instead of an external message")
    };
    let dead_letter = Disposition::DeadLetter("no JSON".into());
    assert!(External::settle_all(&[(&externals[0], &dead_letter)]).await[0].is_ok());
    wait_for_depth(&queues, 0, 1).await;
    assert_eq!(judge(&queues, |_| Verdict::Keep).await[0].body, b"x");
    assert_eq!(queues.problem(), None);
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_an_error_that_names_it() {
    let url = "amqp://user:secret@127.0.0.1:1/%2f";
    let error = Queues::open(&config(url, 1)).await.unwrap_err().to_string();
    assert_eq!(error, "RabbitMQ at `127.0.0.1:1/%2F`: cannot connect");
}

/// The connection stays open, but no data arrives. Lapin's stream does not end, so a waiting worker learns
/// about the lost connection only from missed heartbeats.
#[tokio::test]
async fn a_silent_connection_is_opened_again() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let proxy = Proxy::start(rabbit.address());
    let url = vhost.url_at(proxy.address()) + "?heartbeat=1";
    let queues = Arc::new(Queues::open(&config(&url, 1)).await.unwrap());
    let mut consumer = consume(&queues).await;
    publish(&queues, [1]).await;
    let delivery = receive(&mut consumer).await;
    delivery.settle(&Settlement::Ack).await.unwrap();
    let waiting = tokio::spawn(async move {
        loop {
            let delivery = receive(&mut consumer).await;
            // Entry 1 may be redelivered, because its acknowledgement may be lost with the connection.
            if delivery.entry != entry(1) {
                return delivery.entry.clone();
            }
            delivery.settle(&Settlement::Ack).await.unwrap();
        }
    });
    proxy.swallow(true);
    while queues.problem().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy.swallow(false);
    publish(&queues, [2]).await;
    assert_eq!(waiting.await.unwrap(), entry(2));
}

/// The broker returns a whole window, because the queue was deleted. Then each entry is stored once.
#[tokio::test]
async fn a_window_for_a_deleted_queue_is_published_again() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    vhost.delete_queue("workers");
    let entries: Vec<_> = (0..50).map(entry).collect();
    let published = queues.publish_all(&entries.iter().collect::<Vec<_>>()).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    wait_for_depth(&queues, 50, 0).await;
}

/// A full queue takes a window before the broker refuses a message. Later windows have one message, and nothing is stored
/// twice or after one that was refused alone.
#[tokio::test]
async fn what_a_full_queue_refuses_is_told_and_not_stored() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    let policy = ["set_policy", "-p", &vhost.name, "--apply-to", "queues", "full", "^workers$"];
    rabbit.ctl(&[&policy[..], &["{\"max-length\":5}"]].concat());
    let entries: Vec<_> = (0..400).map(entry).collect();
    let entries: Vec<_> = entries.iter().collect();
    let (mut stored, mut refused) = (0, 0);
    for round in 0..3 {
        let published = queues.publish_all(&entries[round * 100..]).await;
        let count = published.iter().filter(|result| result.is_ok()).count() as u64;
        stored += count;
        refused += published.len() as u64 - count;
        let first = published.iter().position(Result::is_err);
        let Some(first) = first else { continue };
        let error = published[first].as_ref().unwrap_err().to_string();
        assert!(error.contains("refused the message"), "{error}");
        if round > 0 {
            // A message alone is refused before the others are tried.
            assert!(count <= 1, "{count} stored in round {round}");
        }
    }
    assert!(refused > 400, "the queue is not full");
    wait_for_depth(&queues, stored, 0).await;
}
