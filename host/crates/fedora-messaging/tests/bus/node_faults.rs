//! What happens to a whole broker. Each test has one of its own.

use std::time::Instant;

use loopabull_queue::Answered;
use loopabull_testbed::{Proxy, Rabbit};

use crate::bed::{Bed, PREFETCH, number, receive, take, wait_for_reconnect, wait_for_trouble};

fn node(conf: &str) -> &'static Rabbit {
    Box::leak(Box::new(Rabbit::start_with(conf)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_killed_is_waited_for() {
    let mut bed = Bed::on(node(""));
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    bed.rabbit.kill();
    let trouble = wait_for_trouble(&bus, "cannot connect").await;
    assert!(trouble.starts_with("RabbitMQ at `127.0.0.1:"), "{trouble}");
    bed.rabbit.restart();
    wait_for_reconnect(&bus, 1, "a restart, from when it runs", Instant::now()).await;
    assert_eq!(held.ack().await, Answered::ComesAgain);
    // A classic queue keeps what is persistent, as the package publishes.
    take(&mut bus, 0..5).await;
    bed.publisher.number(5);
    take(&mut bus, [5]).await;
    bed.check_prefetch(&mut bus).await;
}

/// The broker takes nothing from publishers; what it has is delivered and acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_stops_neither_deliveries_nor_acknowledgements() {
    let mut bed = Bed::on(node(""));
    let proxy = Proxy::start(bed.rabbit.address());
    let mut config = bed.config();
    config.amqp_url = bed.vhost.url_at(proxy.address());
    let mut bus = bed.start(&config).await;
    bed.publisher.numbers(0..7);
    bed.rabbit.set_memory_alarm(true);
    take(&mut bus, 0..3).await;
    // Anew during the alarm.
    let start = Instant::now();
    proxy.cut();
    wait_for_reconnect(&bus, 1, "a cut during an alarm", start).await;
    take(&mut bus, 3..7).await;
    bed.rabbit.set_memory_alarm(false);
    bed.check_prefetch(&mut bus).await;
    assert_eq!(bus.state().borrow().trouble(), None);
}

/// 406 on the channel, while the connection lives on: the one that made Python consumers stand still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_held_too_long_comes_again() {
    let rabbit = node("consumer_timeout = 1000");
    rabbit.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 500)."]);
    let mut bed = Bed::on(rabbit);
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.numbers(0..2 * u32::from(PREFETCH));
    let held = receive(&mut bus).await;
    assert_eq!(number(&held), 0);
    let trouble = wait_for_trouble(&bus, "PRECONDITION_FAILED").await;
    assert!(trouble.contains("delivery acknowledgement"), "{trouble}");
    wait_for_reconnect(&bus, 1, "an acknowledgement timeout", Instant::now()).await;
    assert_eq!(held.ack().await, Answered::ComesAgain);
    take(&mut bus, 0..2 * u32::from(PREFETCH)).await;
    bed.check_prefetch(&mut bus).await;
    bed.end(bus, 0).await;
}
