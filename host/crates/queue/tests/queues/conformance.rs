//! The guarantees of the queues. The same tests run on both backends, with consumers that receive one entry and with
//! consumers that receive several in advance.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loopabull_model::{Settlement, TaskName};
use loopabull_queue::{Queues, Received, Release, Verdict};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    Fixture, consume, entry, judge, message, publish, receive, wait_for, wait_for_depth, workers,
};
use crate::together::entries_that_are_published_together_keep_their_order;

macro_rules! conformance {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Fixture::embedded()).await;
            })*
        }
        mod embedded_ahead {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Fixture::embedded().ahead()).await;
            })*
        }
        mod rabbitmq {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Fixture::rabbitmq()).await;
            })*
        }
        mod rabbitmq_ahead {
            $(#[tokio::test] async fn $name() {
                super::$name(super::Fixture::rabbitmq().ahead()).await;
            })*
        }
    };
}

conformance! {
    a_published_entry_is_delivered_unchanged
    an_entry_that_is_published_again_keeps_its_id
    deliveries_come_in_the_order_of_publishing
    entries_that_are_published_together_keep_their_order
    an_acknowledged_entry_is_removed
    a_retry_is_the_next_attempt_after_its_delay
    a_delay_between_two_steps_is_kept
    a_dead_letter_keeps_its_reason_attempts_times_and_output
    dead_letters_are_kept_dropped_or_requeued_one_by_one
    a_requeued_dead_letter_has_all_its_attempts_and_keeps_its_history
    a_requeued_delivery_costs_no_attempt
    a_requeued_delivery_can_have_a_delay
    a_due_retry_does_not_wait_behind_new_entries
    retries_take_at_most_every_second_turn
    delays_can_be_ended_early
    an_unsettled_delivery_is_redelivered
    published_entries_survive_reopening
    workers_share_the_entries
    a_stopped_worker_receives_nothing
    a_held_entry_waits_for_its_task_and_other_tasks_continue
    held_entries_are_delivered_before_later_entries
    a_task_that_is_paused_again_keeps_its_held_entries
    one_held_entry_can_be_released_alone
    queues_do_not_mix
}

async fn a_published_entry_is_delivered_unchanged(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1]).await;
    let delivery = receive(&mut consume(&queues).await).await;
    assert_eq!(delivery.entry, entry(1));
    assert_eq!(delivery.attempt, 1);
}

/// If a publish fails, the publisher publishes the entry again with the same id.
async fn an_entry_that_is_published_again_keeps_its_id(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1, 1, 2]).await;
    let mut consumer = consume(&queues).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&entry(2)) {
        let delivery = receive(&mut consumer).await;
        seen.push(delivery.entry.clone());
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    // The embedded file keeps one of the equal entries. RabbitMQ keeps both, and the journal deduplicates
    // them by id.
    seen.dedup();
    assert_eq!(seen, [entry(1), entry(2)]);
}

async fn deliveries_come_in_the_order_of_publishing(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 0..20).await;
    let mut consumer = consume(&queues).await;
    for number in 0..20 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

async fn an_acknowledged_entry_is_removed(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1, 2]).await;
    wait_for_depth(&queues, 2, 0).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..2 {
        let delivery = receive(&mut consumer).await;
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    consumer.close().await.unwrap();
    drop(queues);
    // If an entry was not acknowledged, it is in the queue again after reopening.
    wait_for_depth(&fixture.open().await, 0, 0).await;
    let queues = fixture.open().await;
    publish(&queues, [3]).await;
    assert_eq!(receive(&mut consume(&queues).await).await.entry, entry(3));
}

/// Publishes one entry, settles its first delivery, and returns the time until the entry is redelivered.
async fn delay_of(fixture: &Fixture, settlement: Settlement, attempt: u32) -> Duration {
    let queues = fixture.open().await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    let delivery = receive(&mut consumer).await;
    let start = Instant::now();
    delivery.settle(&settlement).await.unwrap();
    wait_for(&queues, |depth| depth.delayed == 1).await;
    let again = receive(&mut consumer).await;
    let delay = start.elapsed();
    assert_eq!(again.entry, entry(1));
    assert_eq!(again.attempt, attempt);
    assert_eq!(again.queued_at_ms, delivery.queued_at_ms);
    delay
}

async fn a_retry_is_the_next_attempt_after_its_delay(fixture: Fixture) {
    let after = Duration::from_millis(1100);
    let delay = delay_of(&fixture, Settlement::Retry { after }, 2).await;
    assert!(delay >= after, "{delay:?}");
}

/// In RabbitMQ, the delay takes several hops through delay queues. No hop counts as an attempt.
async fn a_delay_between_two_steps_is_kept(fixture: Fixture) {
    let after = Duration::from_millis(2500);
    let delay = delay_of(&fixture, Settlement::Retry { after }, 2).await;
    assert!(delay >= after, "{delay:?}");
}

async fn a_requeued_delivery_can_have_a_delay(fixture: Fixture) {
    let after = Duration::from_millis(500);
    let delay = delay_of(&fixture, Settlement::Requeue { after }, 1).await;
    assert!(delay >= after, "{delay:?}");
}

/// Retries the entries `1..=retries`, publishes the following entries up to `last`, and waits until the retries
/// are due.
async fn retry_before_others(queues: &Queues, retries: u32, last: u32) {
    publish(queues, 1..=retries).await;
    let mut consumer = consume(queues).await;
    for _ in 0..retries {
        let after = Duration::from_hours(1);
        receive(&mut consumer).await.settle(&Settlement::Retry { after }).await.unwrap();
    }
    consumer.close().await.unwrap();
    publish(queues, retries + 1..=last).await;
    wait_for(queues, |depth| depth.delayed == u64::from(retries)).await;
    assert_eq!(queues.end_delays(&workers()).await.unwrap(), u64::from(retries));
    wait_for(queues, |depth| (depth.waiting, depth.delayed) == (u64::from(last), 0)).await;
}

/// Receives and acknowledges entries. Returns the attempt of each.
async fn attempts(queues: &Queues, count: u32) -> Vec<u32> {
    let mut consumer = consume(queues).await;
    let mut attempts = Vec::new();
    for _ in 0..count {
        let delivery = receive(&mut consumer).await;
        attempts.push(delivery.attempt);
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    attempts
}

async fn a_due_retry_does_not_wait_behind_new_entries(fixture: Fixture) {
    let queues = fixture.open().await;
    retry_before_others(&queues, 1, 100).await;
    let attempts = attempts(&queues, 5).await;
    assert_eq!(attempts.iter().filter(|attempt| **attempt == 2).count(), 1, "{attempts:?}");
}

async fn retries_take_at_most_every_second_turn(fixture: Fixture) {
    let queues = fixture.open().await;
    retry_before_others(&queues, 20, 40).await;
    let attempts = attempts(&queues, 20).await;
    let retries = attempts.iter().filter(|attempt| **attempt == 2).count();
    assert!((8..=11).contains(&retries), "{attempts:?}");
}

async fn delays_can_be_ended_early(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 1..=2).await;
    let mut consumer = consume(&queues).await;
    for hours in 1..=2 {
        let after = Duration::from_hours(hours);
        receive(&mut consumer).await.settle(&Settlement::Retry { after }).await.unwrap();
    }
    wait_for(&queues, |depth| depth.delayed == 2).await;
    assert_eq!(queues.end_delays(&workers()).await.unwrap(), 2);
    for _ in 0..2 {
        assert_eq!(receive(&mut consumer).await.attempt, 2);
    }
}

async fn a_dead_letter_keeps_its_reason_attempts_times_and_output(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    let mut delivery = receive(&mut consumer).await;
    // A worker raises the number to 3 if its journal already has three attempts of the entry.
    delivery.attempt = 3;
    let dead = Settlement::DeadLetter {
        reason: "it is no good: ä\n".into(),
        output: format!("{}the end", "x".repeat(10_000)),
    };
    delivery.settle(&dead).await.unwrap();
    wait_for_depth(&queues, 0, 1).await;
    let letters = judge(&queues, |_| Verdict::Keep).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((&letter.id, letter.task.as_ref()), (&entry(1).id, Some(&entry(1).task)));
    assert_eq!(letter.message, Ok(message(1)));
    assert_eq!(letter.death.reason, "it is no good: ä");
    assert_eq!(letter.death.attempts, 3);
    assert_eq!(letter.death.queued_at_ms, delivery.queued_at_ms);
    assert!(letter.death.died_at_ms >= delivery.queued_at_ms);
    assert!(letter.output.ends_with("the end"));
    assert_eq!(letter.output.len(), loopabull_queue::MAX_OUTPUT);
    // Reading a dead letter does not remove it.
    wait_for_depth(&queues, 0, 1).await;
}

async fn dead_letters_are_kept_dropped_or_requeued_one_by_one(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 0..6).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..6 {
        let delivery = receive(&mut consumer).await;
        delivery.settle(&Settlement::dead_letter("x")).await.unwrap();
    }
    wait_for_depth(&queues, 0, 6).await;
    let of = |number: u32| move |id: &loopabull_model::EntryId| *id == entry(number).id;
    let letters = judge(&queues, |letter| match &letter.id {
        id if of(1)(id) || of(4)(id) => Verdict::Requeue,
        id if of(2)(id) => Verdict::Drop,
        _ => Verdict::Keep,
    })
    .await;
    assert_eq!(letters.len(), 6);
    for number in [1, 4] {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry.message, message(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
    wait_for_depth(&queues, 0, 3).await;
    let left = judge(&queues, |_| Verdict::Keep).await;
    let left: Vec<_> = left.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, [0, 3, 5].map(|number| entry(number).id));
}

async fn a_requeued_dead_letter_has_all_its_attempts_and_keeps_its_history(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    for life in 1..=3 {
        let mut delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        delivery.attempt = 5;
        let reason = format!("death {life}");
        delivery.settle(&Settlement::dead_letter(reason)).await.unwrap();
        wait_for_depth(&queues, 0, 1).await;
        let letters = judge(&queues, |_| Verdict::Requeue).await;
        let reasons: Vec<_> = letters[0].history.iter().map(|b| b.reason.as_str()).collect();
        assert_eq!(reasons, ["death 1", "death 2"][..life - 1]);
        assert!(letters[0].history.iter().all(|death| death.attempts == 5));
    }
    // A requeued dead letter is an entry with a new id, so runs of the earlier entry do not count.
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry.id.as_str(), "e-1~4");
}

async fn a_requeued_delivery_costs_no_attempt(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, [1]).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        let back = Settlement::Requeue { after: Duration::ZERO };
        delivery.settle(&back).await.unwrap();
    }
}

/// The queue only redelivers the entry. The journal knows whether the earlier attempt succeeded.
async fn an_unsettled_delivery_is_redelivered(fixture: Fixture) {
    for life in 1..=3 {
        let queues = fixture.open().await;
        if life == 1 {
            publish(&queues, [1]).await;
        }
        let mut consumer = consume(&queues).await;
        assert_eq!(receive(&mut consumer).await.entry, entry(1));
        // The queues are dropped here without a settlement, as if the process died.
    }
}

async fn published_entries_survive_reopening(fixture: Fixture) {
    publish(&fixture.open().await, 0..5).await;
    wait_for_depth(&fixture.open().await, 5, 0).await;
}

async fn workers_share_the_entries(fixture: Fixture) {
    let queues = Arc::new(fixture.open().await);
    publish(&queues, 0..100).await;
    let (stop, settled) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (queues, stop, settled) = (queues.clone(), stop.clone(), settled.clone());
        workers.spawn(async move {
            let mut consumer = consume(&queues).await;
            let mut seen = Vec::new();
            while let Some(received) = consumer.receive(&stop).await.unwrap() {
                let Received::Delivery(delivery) = received else { panic!("{received:?}") };
                seen.push(delivery.entry.id.to_string());
                delivery.settle(&Settlement::Ack).await.unwrap();
                settled.fetch_add(1, Ordering::Relaxed);
            }
            seen
        });
    }
    // An entry that a worker has received in advance is not waiting any more.
    wait_for(&queues, |_| settled.load(Ordering::Relaxed) >= 100).await;
    wait_for_depth(&queues, 0, 0).await;
    stop.cancel();
    let seen: Vec<String> = workers.join_all().await.into_iter().flatten().collect();
    assert_eq!(seen.len(), 100);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 100);
}

async fn a_stopped_worker_receives_nothing(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 0..20).await;
    let mut consumer = consume(&queues).await;
    let delivery = receive(&mut consumer).await;
    delivery.settle(&Settlement::Ack).await.unwrap();
    // The queue has more entries, and a broker may have prefetched some of them.
    let stop = CancellationToken::new();
    stop.cancel();
    for _ in 0..20 {
        assert!(consumer.receive(&stop).await.unwrap().is_none());
    }
    consumer.close().await.unwrap();
    wait_for_depth(&queues, 19, 0).await;
}

async fn a_held_entry_waits_for_its_task_and_other_tasks_continue(fixture: Fixture) {
    let queues = fixture.open().await;
    let mut other = entry(2);
    other.task = "other.task".try_into().unwrap();
    publish(&queues, [1]).await;
    queues.publish(&other).await.unwrap();
    let mut consumer = consume(&queues).await;
    let held = receive(&mut consumer).await;
    held.settle(&Settlement::Hold).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry, other);
    delivery.settle(&Settlement::Ack).await.unwrap();
    wait_for(&queues, |depth| (depth.waiting, depth.held_count()) == (0, 1)).await;
    // Releasing another task does not affect the held entry.
    release(&queues, &other.task).await;
    publish(&queues, [3]).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry, entry(3));
    delivery.settle(&Settlement::Ack).await.unwrap();
    wait_for(&queues, |depth| (depth.waiting, depth.held_count()) == (0, 1)).await;
    release(&queues, &entry(1).task).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!((&delivery.entry, delivery.attempt), (&entry(1), 1));
}

async fn held_entries_are_delivered_before_later_entries(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 0..3).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..3 {
        let delivery = receive(&mut consumer).await;
        delivery.settle(&Settlement::Hold).await.unwrap();
    }
    publish(&queues, 3..6).await;
    wait_for(&queues, |depth| depth.held_count() == 3).await;
    release(&queues, &entry(0).task).await;
    consumer.close().await.unwrap();
    let mut consumer = consume(&queues).await;
    for number in 0..6 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

async fn release_some(queues: &Queues, task: &TaskName, release: Release) {
    let others = queues.release(|name| if name == task { release } else { Release::Nothing });
    others.await.unwrap();
}

async fn release(queues: &Queues, task: &TaskName) {
    release_some(queues, task, Release::All).await;
}

/// If a task is paused again during a release, its entries stay held.
async fn a_task_that_is_paused_again_keeps_its_held_entries(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 0..3).await;
    let mut consumer = consume(&queues).await;
    for _ in 0..3 {
        let delivery = receive(&mut consumer).await;
        delivery.settle(&Settlement::Hold).await.unwrap();
    }
    release(&queues, &entry(0).task).await;
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry, entry(0));
    delivery.settle(&Settlement::Hold).await.unwrap();
    // The embedded file also delivers the two other entries, and the worker holds them again. RabbitMQ
    // delivers neither.
    let stop = CancellationToken::new();
    let hold_all = async {
        while let Some(Received::Delivery(delivery)) = consumer.receive(&stop).await.unwrap() {
            delivery.settle(&Settlement::Hold).await.unwrap();
        }
    };
    let held = async {
        wait_for(&queues, |depth| (depth.waiting, depth.held_count()) == (0, 3)).await;
        stop.cancel();
    };
    tokio::join!(hold_all, held);
    consumer.close().await.unwrap();
    let mut consumer = consume(&queues).await;
    release(&queues, &entry(0).task).await;
    for number in 0..3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

/// A circuit breaker tries one entry before it releases the others.
async fn one_held_entry_can_be_released_alone(fixture: Fixture) {
    let queues = fixture.open().await;
    publish(&queues, 1..=3).await;
    let mut consumer = consume(&queues).await;
    for _ in 1..=3 {
        receive(&mut consumer).await.settle(&Settlement::Hold).await.unwrap();
    }
    wait_for(&queues, |depth| depth.held_count() == 3).await;
    let task = entry(1).task;
    release_some(&queues, &task, Release::One).await;
    let first = receive(&mut consumer).await;
    assert_eq!(first.entry, entry(1));
    first.settle(&Settlement::Ack).await.unwrap();
    wait_for(&queues, |depth| (depth.held_count(), depth.waiting) == (2, 0)).await;
    release_some(&queues, &task, Release::All).await;
    for number in 2..=3 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}

async fn queues_do_not_mix(fixture: Fixture) {
    let queues = fixture.open().await;
    let slow = loopabull_model::QueueName::try_from("slow").unwrap();
    let mut entry = entry(1);
    entry.queue = slow.clone();
    queues.publish(&entry).await.unwrap();
    publish(&queues, [2]).await;
    assert_eq!(receive(&mut consume(&queues).await).await.entry, crate::fixture::entry(2));
    let mut consumer = queues.consume(&slow).await.unwrap();
    let delivery = receive(&mut consumer).await;
    assert_eq!(delivery.entry, entry);
    delivery.settle(&Settlement::dead_letter("x")).await.unwrap();
    assert_eq!(judge(&queues, |_| Verdict::Keep).await.len(), 0);
    let depth = queues.depth(&slow).await.unwrap();
    assert_eq!(depth.waiting, 0);
}
