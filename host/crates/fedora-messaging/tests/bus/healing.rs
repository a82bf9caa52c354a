//! What can happen to a connection, a channel and a queue, and that nothing is lost by it.

use std::time::Instant;

use loopabull_queue::{Answered, Bus};
use loopabull_testbed::Proxy;

use crate::bed::{Bed, PREFETCH, number, receive, take, wait_for_reconnect, wait_for_trouble};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_or_cut_is_made_anew() {
    let mut bed = Bed::shared();
    let proxy = Proxy::start(bed.rabbit.address());
    let mut config = bed.config();
    config.amqp_url = bed.vhost.url_at(proxy.address());
    let mut bus = bed.start(&config).await;
    bed.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    proxy.cut();
    wait_for_reconnect(&bus, 1, "a cut", start).await;
    assert_eq!(held.ack().await, Answered::ComesAgain);
    // What was handed out, what was sent ahead and what waited.
    take(&mut bus, 0..5).await;
    bed.check_prefetch(&mut bus).await;
    let start = Instant::now();
    let by_the_name = ["close_all_connections", "-p", &bed.vhost.name, "a test"];
    bed.rabbit.ctl(&by_the_name);
    let state = wait_for_reconnect(&bus, 2, "close_all_connections", start).await;
    assert_eq!(state.trouble(), None);
    bed.check_prefetch(&mut bus).await;
    assert_eq!(bed.prefetches(), format!("{PREFETCH}\n"));
    bed.end(bus, 0).await;
}

/// It stays open and leads nowhere; lapin's stream does not end with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_made_anew() {
    let mut bed = Bed::shared();
    let proxy = Proxy::start(bed.rabbit.address());
    let mut config = bed.config();
    config.amqp_url = bed.vhost.url_at(proxy.address()) + "?heartbeat=1";
    let mut bus = bed.start(&config).await;
    bed.publisher.number(0);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    proxy.swallow(true);
    let trouble = wait_for_trouble(&bus, "").await;
    println!("silence noticed after {} ms: {trouble}", start.elapsed().as_millis());
    proxy.swallow(false);
    bed.publisher.number(1);
    wait_for_reconnect(&bus, 1, "silence", start).await;
    assert_eq!(held.ack().await, Answered::ComesAgain);
    take(&mut bus, 0..2).await;
    bed.check_prefetch(&mut bus).await;
}

/// The Python consumer only logs it, and is stuck as long as the connection lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_closed_is_made_anew() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    bed.publisher.numbers(0..5);
    let held = receive(&mut bus).await;
    let start = Instant::now();
    // What a wrong acknowledgement does, without one: the broker has its own wrong idea of the channel.
    bed.rabbit.ctl(&["eval", &close_channels(&bed.vhost.name)]);
    wait_for_reconnect(&bus, 1, "a closed channel", start).await;
    assert_eq!(held.ack().await, Answered::ComesAgain);
    take(&mut bus, 0..5).await;
    bed.check_prefetch(&mut bus).await;
    bed.end(bus, 0).await;
}

/// Also while nobody receives, and what is in hand is answered in time or comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_deleted_is_made_and_bound_anew() {
    let mut bed = Bed::shared();
    let mut bus = bed.start(&bed.config()).await;
    for round in 1..=2 {
        let start = Instant::now();
        bed.delete_queue().await;
        wait_for_reconnect(&bus, round, "a deleted queue", start).await;
        bed.publisher.number(1);
        let delivery = receive(&mut bus).await;
        assert_eq!(number(&delivery), 1);
        assert_eq!(delivery.ack().await, Answered::Told);
        bed.check_prefetch(&mut bus).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_is_told_of_and_tried_again() {
    let mut bed = Bed::shared();
    let user = format!("u-{}", bed.vhost.name);
    bed.rabbit.ctl(&["add_user", &user, "p"]);
    let mut config = bed.config();
    config.amqp_url = bed.vhost.url().replace("guest:guest", &format!("{user}:wrong"));
    let bus = Bus::start(&config).unwrap();
    let trouble = wait_for_trouble(&bus, "ACCESS_REFUSED").await;
    assert!(!trouble.contains("wrong"), "{trouble}");
    drop(bus);
    config.amqp_url = config.amqp_url.replace("wrong", "p");
    let mut bus = Bus::start(&config).unwrap();
    wait_for_trouble(&bus, "refused for user").await;
    // The vhost, but not to make a queue.
    let permit = |configure: &str| {
        bed.rabbit.ctl(&["set_permissions", "-p", &bed.vhost.name, &user, configure, ".*", ".*"]);
    };
    permit("^$");
    wait_for_trouble(&bus, "cannot make the queue").await;
    let start = Instant::now();
    permit(".*");
    wait_for_reconnect(&bus, 1, "a missing permission", start).await;
    bed.publisher.number(1);
    take(&mut bus, [1]).await;
    bed.check_prefetch(&mut bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_other_arguments_is_told_of() {
    let bed = Bed::shared();
    bed.start(&bed.config()).await.close().await;
    let mut config = bed.config();
    config.queue.arguments.clear();
    let bus = Bus::start(&config).unwrap();
    let trouble = wait_for_trouble(&bus, "cannot make the queue").await;
    assert!(trouble.contains("inequivalent arg 'x-max-length'"), "{trouble}");
    let since = bus.state().borrow().since;
    bed.delete_queue().await;
    let state = wait_for_reconnect(&bus, 1, "other arguments", Instant::now()).await;
    assert!(state.since > since);
}

/// Erlang that ends the broker's side of each channel of a vhost, as an error of its own would.
fn close_channels(vhost: &str) -> String {
    format!(
        "[exit(Pid, {{amqp_error, precondition_failed, \"a test\", none}}) \
         || [{{pid, Pid}}, {{vhost, V}}] <- rabbit_channel:info_all([pid, vhost]), V =:= <<\"{vhost}\">>]."
    )
}
