//! The queues of one test, and the operations that tests share.

use std::time::Duration;

use loopabull_fedmsg::{Envelope, Verifier};
use loopabull_model::{Entry, EntryId, Message, QueueName};
use loopabull_queue::{
    Backend, Config, Consumer, DeadLetter, Delivery, Depth, QueueConfig, Queues, RabbitMqConfig,
    Received, TABLES, Verdict,
};
use loopabull_store::Schema;
use loopabull_testbed::{Rabbit, Vhost};
use tokio_util::sync::CancellationToken;

const SCHEMA: Schema = Schema { oldest: 1, steps: &[TABLES] };

/// The storage of one test's queues, which can be opened repeatedly.
pub(crate) struct Fixture {
    pub(crate) storage: Storage,
    /// The prefetch of the consumers.
    pub(crate) prefetch: u16,
}

pub(crate) enum Storage {
    Embedded(tempfile::TempDir),
    RabbitMq(Vhost),
}

impl Fixture {
    pub(crate) fn embedded() -> Self {
        let storage = Storage::Embedded(tempfile::tempdir().unwrap());
        Self { storage, prefetch: 1 }
    }

    pub(crate) fn rabbitmq() -> Self {
        Self { storage: Storage::RabbitMq(Rabbit::shared().vhost()), prefetch: 1 }
    }

    /// Lets consumers receive entries in advance.
    pub(crate) fn ahead(self) -> Self {
        Self { prefetch: 8, ..self }
    }

    pub(crate) fn config(&self) -> Config {
        let backend = match &self.storage {
            Storage::Embedded(folder) => {
                Backend::Embedded { file: folder.path().join("a.db"), schema: SCHEMA }
            }
            Storage::RabbitMq(vhost) => rabbitmq_backend(&vhost.url()),
        };
        let slow = QueueConfig::new("slow".try_into().unwrap());
        let mut workers = QueueConfig::new(QueueName::default());
        workers.tasks.push(entry(1).task);
        workers.prefetch = self.prefetch;
        Config { backend, queues: vec![workers, slow] }
    }

    pub(crate) async fn open(&self) -> Queues {
        Queues::open(&self.config()).await.unwrap()
    }
}

fn rabbitmq_backend(url: &str) -> Backend {
    let (url, management, ack_timeout) = (url.to_owned(), None, None);
    let idle_limit = RabbitMqConfig::IDLE_LIMIT;
    Backend::RabbitMq(RabbitMqConfig { url, management, ack_timeout, idle_limit })
}

/// Returns a configuration with one queue, in the RabbitMQ at `url`.
pub(crate) fn config(url: &str, prefetch: u16) -> Config {
    let queues = vec![QueueConfig { prefetch, ..QueueConfig::new(QueueName::default()) }];
    Config { backend: rabbitmq_backend(url), queues }
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
    received
        .expect("a delivery arrives within a minute")
        .unwrap()
        .expect("the consumer is not stopped")
}

pub(crate) async fn receive(consumer: &mut Consumer) -> Delivery {
    match receive_any(consumer).await {
        Received::Delivery(delivery) => *delivery,
        Received::External(externals) => panic!("received external messages: {externals:?}"),
    }
}

/// Waits until the depth of the queue satisfies a condition, because a broker updates its counts with a
/// delay.
pub(crate) async fn wait_for(queues: &Queues, is_reached: impl Fn(&Depth) -> bool) {
    for _ in 0..600 {
        if queues.depth(&workers()).await.is_ok_and(|depth| is_reached(&depth)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the depth did not reach the expected state: {:?}", queues.depth(&workers()).await);
}

pub(crate) async fn wait_for_depth(queues: &Queues, waiting: u64, dead: u64) {
    wait_for(queues, |depth| (depth.waiting, depth.dead) == (waiting, dead)).await;
}

/// Returns all dead letters, and carries out the verdict of `judge` on each.
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
