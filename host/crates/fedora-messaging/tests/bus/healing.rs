//! Faults of a connection, a channel and a queue. None of them loses a message.

use std::time::Instant;

use loopabull_fedora_messaging::{Bus, Settled};
use loopabull_testbed::Proxy;

use crate::fixture::{
    Fixture, PREFETCH, number, receive, take, wait_for_problem, wait_for_reconnect,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_or_cut_connection_is_opened_again() {
    let mut fixture = Fixture::shared();
    let proxy = Proxy::start(fixture.rabbit.address());
    let mut config = fixture.config();
    config.amqp_url = fixture.vhost.url_at(proxy.address());
    let mut bus = fixture.start(&config).await;
    fixture.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    proxy.cut();
    wait_for_reconnect(&bus, 1, "a cut", start).await;
    assert_eq!(held.ack().await, Settled::ChannelGone);
    // All messages arrive: the received message, the prefetched messages and the waiting messages.
    take(&mut bus, 0..5).await;
    fixture.check_prefetch(&mut bus).await;
    let start = Instant::now();
    let close_all = ["close_all_connections", "-p", &fixture.vhost.name, "a test"];
    fixture.rabbit.ctl(&close_all);
    let state = wait_for_reconnect(&bus, 2, "close_all_connections", start).await;
    assert_eq!(state.problem(), None);
    fixture.check_prefetch(&mut bus).await;
    assert_eq!(fixture.prefetches(), format!("{PREFETCH}\n"));
    fixture.end(bus, 0).await;
}

/// The connection stays open, but no data arrives. Lapin's stream does not end in this case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_opened_again() {
    let mut fixture = Fixture::shared();
    let proxy = Proxy::start(fixture.rabbit.address());
    let mut config = fixture.config();
    config.amqp_url = fixture.vhost.url_at(proxy.address()) + "?heartbeat=1";
    let mut bus = fixture.start(&config).await;
    fixture.publisher.number(0);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    proxy.swallow(true);
    let problem = wait_for_problem(&bus, "").await;
    println!("silence noticed after {} ms: {problem}", start.elapsed().as_millis());
    proxy.swallow(false);
    fixture.publisher.number(1);
    wait_for_reconnect(&bus, 1, "silence", start).await;
    assert_eq!(held.ack().await, Settled::ChannelGone);
    take(&mut bus, 0..2).await;
    fixture.check_prefetch(&mut bus).await;
}

/// The Python consumer only logs a closed channel, and receives nothing until the connection ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_channel_is_opened_again() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    fixture.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    // The broker closes the channels, as after an invalid acknowledgement.
    fixture.rabbit.eval(&close_channels(&fixture.vhost.name));
    wait_for_reconnect(&bus, 1, "a closed channel", start).await;
    assert_eq!(held.ack().await, Settled::ChannelGone);
    take(&mut bus, 0..5).await;
    fixture.check_prefetch(&mut bus).await;
    fixture.end(bus, 0).await;
}

/// The bus must also notice a deleted queue while the test is not waiting for a delivery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_created_and_bound_again() {
    let mut fixture = Fixture::shared();
    let mut bus = fixture.start(&fixture.config()).await;
    for round in 1..=2 {
        let start = Instant::now();
        fixture.delete_queue().await;
        wait_for_reconnect(&bus, round, "a deleted queue", start).await;
        fixture.publisher.number(1);
        let delivery = receive(&mut bus).await;
        assert_eq!(number(&delivery), 1);
        assert_eq!(delivery.ack().await, Settled::Sent);
        fixture.check_prefetch(&mut bus).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_reported_and_retried() {
    let mut fixture = Fixture::shared();
    let user = format!("u-{}", fixture.vhost.name);
    fixture.rabbit.ctl(&["add_user", &user, "p"]);
    let mut config = fixture.config();
    config.amqp_url = fixture.vhost.url().replace("guest:guest", &format!("{user}:wrong"));
    let bus = Bus::start(&config).unwrap();
    let problem = wait_for_problem(&bus, "ACCESS_REFUSED").await;
    assert!(!problem.contains("wrong"), "{problem}");
    drop(bus);
    config.amqp_url = config.amqp_url.replace("wrong", "p");
    let mut bus = Bus::start(&config).unwrap();
    wait_for_problem(&bus, "refused for user").await;
    // The user may use the vhost, but has no permission to create a queue.
    let permit = |configure: &str| {
        fixture.rabbit.ctl(&[
            "set_permissions",
            "-p",
            &fixture.vhost.name,
            &user,
            configure,
            ".*",
            ".*",
        ]);
    };
    permit("^$");
    wait_for_problem(&bus, "cannot create the queue").await;
    let start = Instant::now();
    permit(".*");
    wait_for_reconnect(&bus, 1, "a missing permission", start).await;
    fixture.publisher.number(1);
    take(&mut bus, [1]).await;
    fixture.check_prefetch(&mut bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_reported() {
    let fixture = Fixture::shared();
    fixture.start(&fixture.config()).await.close().await;
    let mut config = fixture.config();
    config.queue.arguments.clear();
    let bus = Bus::start(&config).unwrap();
    let problem = wait_for_problem(&bus, "cannot create the queue").await;
    assert!(problem.contains("inequivalent arg 'x-max-length'"), "{problem}");
    let since = bus.state().borrow().since;
    fixture.delete_queue().await;
    let state = wait_for_reconnect(&bus, 1, "other arguments", Instant::now()).await;
    assert!(state.since > since);
}

/// Returns Erlang code that closes all channels of a vhost on the broker, as a protocol error would.
fn close_channels(vhost: &str) -> String {
    format!(
        "[exit(Pid, {{amqp_error, precondition_failed, \"a test\", none}}) \
         || [{{pid, Pid}}, {{vhost, V}}] <- rabbit_channel:info_all([pid, vhost]), V =:= <<\"{vhost}\">>]"
    )
}
