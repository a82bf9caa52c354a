//! RabbitMQ through lapin, on one connection and one channel.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::body::{TOPIC, body, bus_message};

/// The arguments of a publisher or a consumer.
#[derive(Args)]
pub(crate) struct Amqp {
    /// The address of the broker
    url: String,
    /// The name of the queue, which is created if it is missing
    queue: String,
    /// The number of messages
    messages: u32,
    /// The number of unconfirmed messages, or of unacknowledged deliveries
    window: u16,
    /// The type of the queue
    #[arg(default_value = "quorum")]
    kind: String,
}

/// Publishes messages and returns the seconds until the last confirm.
pub(crate) fn publish(amqp: &Amqp) -> Result<f64> {
    let body = body();
    let body = body.as_str();
    publish_each(amqp, |_| body)
}

/// Publishes bus messages in the form of the Python loopabull's queue, and returns the seconds until the last confirm. Of each hundred,
/// `worked` are for the task `greet`; no task wants the others.
pub(crate) fn publish_backlog(amqp: &Amqp, worked: u32) -> Result<f64> {
    publish_each(amqp, |number| {
        let topic = if number % 100 < worked { TOPIC } else { "org.example.prod.other.thing" };
        bus_message(topic, number).to_string()
    })
}

fn publish_each<M: AsRef<str>>(amqp: &Amqp, message: impl Fn(u32) -> M) -> Result<f64> {
    run(amqp, async |channel, amqp| {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let start = Instant::now();
        let mut unconfirmed = VecDeque::new();
        for number in 0..amqp.messages {
            let body = message(number);
            let properties = BasicProperties::default().with_delivery_mode(2);
            let (exchange, key) = (ShortString::default(), ShortString::from(amqp.queue.as_str()));
            let options = BasicPublishOptions::default();
            let confirm =
                channel.basic_publish(exchange, key, options, body.as_ref().as_bytes(), properties);
            unconfirmed.push_back(confirm.await?);
            if unconfirmed.len() >= usize::from(amqp.window)
                && let Some(first) = unconfirmed.pop_front()
            {
                ensure!(first.await?.is_ack(), "the broker refused a message");
            }
        }
        for confirm in unconfirmed {
            ensure!(confirm.await?.is_ack(), "the broker refused a message");
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

/// Consumes messages, acknowledges each, and returns the seconds.
pub(crate) fn consume(amqp: &Amqp) -> Result<f64> {
    run(amqp, async |channel, amqp| {
        channel.basic_qos(amqp.window, BasicQosOptions::default()).await?;
        let (queue, tag) = (ShortString::from(amqp.queue.as_str()), ShortString::default());
        let options = BasicConsumeOptions::default();
        let start = Instant::now();
        let mut messages =
            channel.basic_consume(queue, tag, options, FieldTable::default()).await?;
        for _ in 0..amqp.messages {
            let message = messages.next().await.context("the broker ended the consumer")??;
            message.ack(BasicAckOptions::default()).await?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

fn run(amqp: &Amqp, work: impl AsyncFnOnce(Channel, &Amqp) -> Result<f64>) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&amqp.url, properties).await?;
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(LongString::from(amqp.kind.as_str()));
        arguments.insert("x-queue-type".into(), kind);
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(amqp.queue.as_str().into(), options, arguments).await?;
        let seconds = work(channel, amqp).await?;
        // The result is ignored: the work is done.
        drop(connection.close(200, "done".into()).await);
        Ok(seconds)
    })
}
