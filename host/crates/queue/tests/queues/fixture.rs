//! A place for one test's queues, and how to ask them.

use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Entry, EntryId, Message, QueueName};
use loopabull_queue::{
    Config, Consumer, DeadLetter, Delivery, Depth, Place, QueueConfig, Queues, Received, Verdict,
};
use loopabull_testbed::{Rabbit, Vhost};
use tokio_util::sync::CancellationToken;

/// A place for one test's queues, which can be opened again and again.
pub(crate) enum Bed {
    Embedded(tempfile::TempDir),
    Amqp(Vhost),
}

impl Bed {
    pub(crate) fn embedded() -> Self {
        Self::Embedded(tempfile::tempdir().unwrap())
    }

    pub(crate) fn amqp() -> Self {
        Self::Amqp(Rabbit::shared().vhost())
    }

    pub(crate) fn config(&self) -> Config {
        let place = match self {
            Self::Embedded(folder) => Place::Embedded { file: folder.path().join("queue.db") },
            Self::Amqp(vhost) => amqp_place(&vhost.url(), 1),
        };
        let slow = QueueConfig::new("slow".try_into().unwrap());
        let mut workers = QueueConfig::new(QueueName::default());
        workers.tasks.push(entry(1).task);
        Config { place, queues: vec![workers, slow] }
    }

    pub(crate) async fn open(&self) -> Queues {
        Queues::open(&self.config()).await.unwrap()
    }
}

pub(crate) fn amqp_place(url: &str, prefetch: u16) -> Place {
    Place::Amqp { url: url.to_owned(), prefetch, management: None, ack_timeout: None }
}

/// One queue in this RabbitMQ.
pub(crate) fn config(url: &str, prefetch: u16) -> Config {
    let queues = vec![QueueConfig::new(QueueName::default())];
    Config { place: amqp_place(url, prefetch), queues }
}

pub(crate) fn workers() -> QueueName {
    QueueName::default()
}

pub(crate) fn message(number: u32) -> Message {
    let body = format!(
        r#"{{"msg_id":"m-{number}","headers":{{"h":"ä"}},"timestamp":7,"msg":{{"n":{number},"big":123456789012345678901234567890,"f":1.50}}}}"#
    );
    let envelope = Envelope::parse(&[b"org.example.thing", body.as_bytes()], 2).unwrap();
    Verifier::Off.verify(envelope, 0).unwrap()
}

pub(crate) fn entry(number: u32) -> Entry {
    Entry {
        id: EntryId::new(format!("e-{number}")),
        queue: workers(),
        task: "a.task".try_into().unwrap(),
        message: message(number),
    }
}

pub(crate) async fn publish(queues: &Queues, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        queues.publish(&entry(number)).await.unwrap();
    }
}

pub(crate) async fn consume(queues: &Queues) -> Consumer {
    queues.consume(&workers()).await.unwrap()
}

pub(crate) async fn receive_any(consumer: &mut Consumer) -> Received {
    let stop = CancellationToken::new();
    let received = tokio::time::timeout(Duration::from_secs(60), consumer.receive(&stop)).await;
    received.expect("something within a minute").unwrap().expect("nobody stopped it")
}

pub(crate) async fn receive(consumer: &mut Consumer) -> Delivery {
    match receive_any(consumer).await {
        Received::Delivery(delivery) => delivery,
        Received::Foreign(foreign) => panic!("{foreign:?}"),
    }
}

/// Waits until the queue looks so: a broker counts a moment later.
pub(crate) async fn wait_for(queues: &Queues, is_so: impl Fn(&Depth) -> bool) {
    for _ in 0..600 {
        if queues.depth(&workers()).await.is_ok_and(|depth| is_so(&depth)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("found {:?}", queues.depth(&workers()).await);
}

pub(crate) async fn wait_for_depth(queues: &Queues, waiting: u64, dead: u64) {
    wait_for(queues, |depth| (depth.waiting, depth.dead) == (waiting, dead)).await;
}

/// Returns all dead letters, and does with each what `judge` says.
pub(crate) async fn judge(
    queues: &Queues,
    mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    let look = |letter: &DeadLetter| {
        letters.push(letter.clone());
        judge(letter)
    };
    queues.judge_dead_letters(&workers(), look).await.unwrap();
    letters
}
