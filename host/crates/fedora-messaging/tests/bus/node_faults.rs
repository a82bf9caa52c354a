//! Faults of a whole broker. Each test has a broker of its own.

use std::time::Instant;

use loopabull_fedora_messaging::Settled;
use loopabull_testbed::{Proxy, Rabbit};

use crate::fixture::{
    Fixture, PREFETCH, number, receive, take, wait_for_problem, wait_for_reconnect,
};

fn node(settings: &[&str]) -> &'static Rabbit {
    Box::leak(Box::new(Rabbit::start_with(settings)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_reconnects_to_a_broker_that_was_killed() {
    let mut fixture = Fixture::on(node(&[]));
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    fixture.rabbit.kill();
    let problem = wait_for_problem(&bus, "cannot connect").await;
    assert!(problem.starts_with("RabbitMQ at `127.0.0.1:"), "{problem}");
    fixture.rabbit.restart();
    wait_for_reconnect(&bus, 1, "a restart, from when it runs", Instant::now()).await;
    assert_eq!(held.ack().await, Settled::ChannelGone);
    // The broker has kept the messages: the queue is durable, and fedora-messaging publishes persistent
    // messages.
    take(&mut bus, 0..5).await;
    fixture.publisher.number(5);
    take(&mut bus, [5]).await;
    fixture.check_prefetch(&mut bus).await;
}

/// During a memory alarm, the broker blocks publishers. Messages are still delivered and acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_stops_neither_deliveries_nor_acknowledgements() {
    let mut fixture = Fixture::on(node(&[]));
    let proxy = Proxy::start(fixture.rabbit.address());
    let mut config = fixture.config();
    config.amqp_url = fixture.vhost.url_at(proxy.address());
    let mut bus = fixture.start(&config).await;
    fixture.publisher.numbers(0..7);
    fixture.rabbit.set_memory_alarm(true);
    take(&mut bus, 0..3).await;
    // The bus must also be able to reconnect during the alarm.
    let start = Instant::now();
    proxy.cut();
    wait_for_reconnect(&bus, 1, "a cut during an alarm", start).await;
    take(&mut bus, 3..7).await;
    fixture.rabbit.set_memory_alarm(false);
    fixture.check_prefetch(&mut bus).await;
    assert_eq!(bus.state().borrow().problem(), None);
}

/// The broker closes the channel with the code 406, but the connection stays open. Python consumers hang in
/// this case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_unsettled_for_too_long_is_redelivered() {
    let rabbit = node(&["{consumer_timeout, 1000}"]);
    rabbit.eval("application:set_env(rabbit, channel_tick_interval, 500)");
    let mut fixture = Fixture::on(rabbit);
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.numbers(0..2 * u32::from(PREFETCH));
    let held = receive(&mut bus).await;
    assert_eq!(number(&held), 0);
    let problem = wait_for_problem(&bus, "PRECONDITION_FAILED").await;
    assert!(problem.contains("delivery acknowledgement"), "{problem}");
    wait_for_reconnect(&bus, 1, "an acknowledgement timeout", Instant::now()).await;
    assert_eq!(held.ack().await, Settled::ChannelGone);
    take(&mut bus, 0..2 * u32::from(PREFETCH)).await;
    fixture.check_prefetch(&mut bus).await;
    fixture.end(bus, 0).await;
}
