//! The publishing end: one connection and one channel with confirms, for everybody.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::Mutex;

use super::broker::{Broker, PATIENCE};
use super::entry::Entry;
use crate::QueueError;

/// Publishes entries, made anew when its connection broke.
#[derive(Debug)]
pub(super) struct Publisher {
    broker: Broker,
    // Held over `await` on purpose: while one caller makes the connection anew, the others wait
    // for it instead of making more.
    session: Mutex<Option<Session>>,
}

#[derive(Debug)]
struct Session {
    connection: Connection,
    channel: Channel,
}

impl Publisher {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, session: Mutex::new(None) }
    }

    /// Publishes an entry and waits for the broker's word that it has it.
    pub(super) async fn send(&self, entry: &Entry) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let queue = ShortString::from(entry.queue.as_str());
        let published = async {
            let properties = entry.properties();
            channel
                .basic_publish(ShortString::default(), queue, options, &entry.body, properties)
                .await?
                .await
        };
        let reason = match self.wait_for_confirm(published).await? {
            Confirmation::Ack(None) => return Ok(()),
            Confirmation::Ack(Some(returned)) => returned.reply_text.to_string(),
            Confirmation::Nack(_) => "it was refused".to_owned(),
            Confirmation::NotRequested => "confirms are off".to_owned(),
        };
        let (broker, queue) = (self.broker.name.clone(), entry.queue.clone());
        Err(QueueError::NotConfirmed { broker, queue, reason })
    }

    /// Tells whether the broker has stopped reading from publishers.
    pub(super) fn trouble(&self) -> Option<String> {
        let session = self.session.try_lock().ok()?;
        let blocked = session.as_ref()?.connection.status().blocked();
        let broker = &self.broker.name;
        blocked.then(|| format!("RabbitMQ at `{broker}` takes no messages: memory or disk alarm"))
    }

    /// Waits as long as the connection lives: a broker with an alarm takes what we sent when the
    /// alarm is over, and whoever had sent it again by then would have made two of it. A connection
    /// that is dead ends the wait by its heartbeat.
    async fn wait_for_confirm(
        &self,
        published: impl Future<Output = lapin::Result<Confirmation>>,
    ) -> Result<Confirmation, QueueError> {
        tokio::pin!(published);
        let mut seconds = 0;
        loop {
            if let Ok(result) = tokio::time::timeout(PATIENCE, &mut published).await {
                return result.map_err(|source| self.broker.error("publish", source));
            }
            seconds += PATIENCE.as_secs();
            tracing::warn!("RabbitMQ at `{}`: no confirm for {seconds} s", self.broker.name);
        }
    }

    async fn channel(&self) -> Result<Channel, QueueError> {
        let mut session = self.session.lock().await;
        if session.as_ref().is_none_or(|session| !session.is_usable()) {
            let connection = self.broker.connect("publish").await?;
            let channel = self.broker.wait("open a channel", connection.create_channel()).await?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default());
            self.broker.wait("ask for confirms", confirms).await?;
            *session = Some(Session { connection, channel });
        }
        Ok(session.as_ref().expect("it was made above").channel.clone())
    }
}

impl Session {
    fn is_usable(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }
}
