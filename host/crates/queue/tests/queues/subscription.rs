//! The begin and the end of a subscription on RabbitMQ.

use std::time::Duration;

use loopabull_model::Settlement;
use loopabull_queue::Queues;
use loopabull_testbed::Rabbit;
use tokio_util::sync::CancellationToken;

use crate::fixture::{config, consume, entry, publish, receive};

/// A pause or a drain can come at any moment of a subscription. The broker must not keep a consumer that nobody reads.
#[tokio::test]
async fn a_subscription_that_is_stopped_while_it_begins_leaves_nothing_behind() {
    let vhost = Rabbit::shared().vhost();
    let queues = Queues::open(&config(&vhost.url(), 1)).await.unwrap();
    for step in 0..60 {
        let mut consumer = consume(&queues).await;
        let stop = CancellationToken::new();
        let cancel = async {
            tokio::time::sleep(Duration::from_micros(step * 150)).await;
            stop.cancel();
        };
        let (received, ()) = tokio::join!(consumer.receive(&stop), cancel);
        assert!(received.unwrap().is_none());
        consumer.stop().await.unwrap();
        consumer.close().await.unwrap();
    }
    publish(&queues, 0..60).await;
    let mut consumer = consume(&queues).await;
    for number in 0..60 {
        let delivery = receive(&mut consumer).await;
        assert_eq!(delivery.entry, entry(number));
        delivery.settle(&Settlement::Ack).await.unwrap();
    }
}
