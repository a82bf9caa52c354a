//! The state that all consumers and publishers of one broker share, and the operations on the queues of the
//! broker.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use loopabull_amqp::{AmqpError, Broker, Published, Session, Supervisor, Version};
use loopabull_model::{QueueName, TaskName, chain};
use parking_lot::Mutex;

use super::ages::Ages;
use super::declaration::{self, Declaration};
use super::due::DueRetries;
use super::held::HeldTasks;
use super::outgoing::Outgoing;
use super::topology::QueueRole;
use crate::config::{QueueConfig, RabbitMqConfig};
use crate::error::QueueError;

/// The time between the deletion of a work queue, as far as we notice it, and its creation. The broker needs the
/// time to cancel the consumers of all hosts. It would move the consumers to a queue that is created too early
/// (`rabbit_channel:handle_consuming_queue_down_or_eol`). They would then receive nothing, and their late
/// acknowledgements could settle entries of the new queue.
const RECREATION_DELAY: Duration = Duration::from_secs(1);

/// Maximum number of messages whose confirms are waited for together, and of the bytes of their bodies.
const WINDOW: usize = 128;
const WINDOW_BYTES: usize = 1 << 20;
/// Size of a body from which a message is published alone, in bytes. If the broker refuses it because of its size, it closes
/// the channel of the publish.
const LARGE: usize = 64 << 10;

/// The effect of a missing queue for held entries, and what the operator can do.
const MISSING_EFFECT: &str = "while the task is paused or refused, its messages are delivered and delayed again \
     each minute; create the queue with `loopabull-host broker apply` as a user who may configure it";

/// The state that all consumers and publishers of one broker share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broker: Broker,
    /// Version of the broker. `None` if it is unknown, for example over TLS.
    pub(super) version: Option<Version>,
    pub(super) settings: RabbitMqConfig,
    pub(super) ages: Ages,
    pub(super) held: HeldTasks,
    pub(super) retries: DueRetries,
    supervisor: Supervisor,
    queues: Vec<QueueConfig>,
    /// Queues that are known to exist on the broker with the arguments of our declaration.
    matching: Mutex<BTreeSet<QueueName>>,
    /// Queues that did not store the last message. The next one is published alone: a broker takes a whole window before it
    /// refuses the first message, although a queue is full.
    refusing: Mutex<BTreeSet<String>>,
    /// Queues that cannot be consumed, each with the reason.
    problems: Mutex<BTreeMap<QueueName, String>>,
}

impl Shared {
    pub(super) async fn connect(
        settings: &RabbitMqConfig,
        queues: &[QueueConfig],
    ) -> Result<Self, AmqpError> {
        let broker = Broker::new(&settings.url)?;
        let shared = Self {
            supervisor: Supervisor::start(broker.clone()).await?,
            version: broker.version().await,
            broker,
            settings: settings.clone(),
            ages: Ages::default(),
            held: HeldTasks::default(),
            retries: DueRetries::default(),
            queues: queues.to_vec(),
            matching: Mutex::default(),
            refusing: Mutex::default(),
            problems: Mutex::default(),
        };
        for queue in queues {
            shared.look_for_held(&queue.name, &queue.tasks).await?;
        }
        Ok(shared)
    }

    /// Looks for queues of held entries that earlier processes created. Returns the tasks that have no such
    /// queue.
    pub(super) async fn look_for_held<'a>(
        &self,
        queue: &QueueName,
        tasks: &'a [TaskName],
    ) -> Result<Vec<&'a TaskName>, AmqpError> {
        let session = self.session().await?;
        let mut others = Vec::new();
        for task in tasks {
            match self.count(&session, queue, &QueueRole::Held(task.clone())).await? {
                Some(_) => self.held.note(queue, task),
                None => others.push(task),
            }
        }
        Ok(others)
    }

    /// Finds out whether the queues for held entries of the tasks can be created when they are needed: creates
    /// one, unless there is one. If the broker refuses that, reports all missing ones.
    pub(super) async fn try_held(
        &self,
        queue: &QueueName,
        tasks: &[TaskName],
    ) -> Result<(), QueueError> {
        let missing = self.look_for_held(queue, tasks).await?;
        let Some(first) = missing.first().filter(|_| missing.len() == tasks.len()) else {
            return Ok(());
        };
        let session = self.session().await?;
        match self.create(&session, queue, &QueueRole::Held((*first).clone())).await {
            Ok(()) => Ok(()),
            Err(error) if declaration::is_refused(&error) => {
                let reason = chain(&error);
                for task in missing {
                    self.report_missing(queue, task, reason.clone());
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reports that the queue for held entries of a task cannot be created or used.
    pub(super) fn report_missing(&self, queue: &QueueName, task: &TaskName, reason: String) {
        let name = QueueRole::Held(task.clone()).name(queue);
        if self.held.set_missing(queue, task, reason.clone()) {
            tracing::error!("cannot use queue `{name}`: {reason}; {MISSING_EFFECT}");
        }
    }

    pub(super) async fn session(&self) -> Result<Arc<Session>, AmqpError> {
        self.supervisor.session().await
    }

    /// Publishes a message and waits for the confirm. If the queue is missing, creates the queue and
    /// publishes again.
    pub(super) async fn publish(&self, outgoing: &Outgoing) -> Result<(), QueueError> {
        self.publish_in(None, outgoing).await
    }

    /// Does the same, in the session of this generation.
    async fn publish_in(&self, of: Option<u64>, outgoing: &Outgoing) -> Result<(), QueueError> {
        for _ in 0..2 {
            let session = self.session_of(of).await?;
            match session.publish(&outgoing.publication()).await? {
                Published::Confirmed => return Ok(()),
                Published::Unroutable if matches!(outgoing.role, QueueRole::Held(_)) => {
                    self.create(&session, &outgoing.queue, &outgoing.role).await?;
                }
                Published::Unroutable => {
                    self.ensure_exists(&session, &outgoing.queue, &outgoing.role).await?;
                }
            }
        }
        Err(QueueError::Amqp(AmqpError::NotConfirmed {
            broker: self.broker.name().to_owned(),
            routing_key: outgoing.name.clone(),
            reason: "the queue is missing again although it was just created".to_owned(),
        }))
    }

    /// Publishes messages to one queue of the broker, in order and in windows. Returns the result of each. After the first one that is not
    /// stored, no further window is published, so that later messages wait behind it. Later ones of the same window may be
    /// stored.
    ///
    /// The first message of a window that was not confirmed is published again alone, since only that tells why. If the broker
    /// had stored it nevertheless, it is twice in the queue, and the host that ran one recognises the other by its entry id.
    ///
    /// With `of`, the messages take the place of deliveries of this generation of the session. Nothing is published in a later
    /// session, because the broker redelivers what they replace.
    pub(super) async fn publish_all(
        &self,
        messages: Vec<Outgoing>,
        of: Option<u64>,
    ) -> Vec<Result<(), QueueError>> {
        let Some(queue) = messages.first().map(|message| message.name.clone()) else {
            return Vec::new();
        };
        let mut results: Vec<Option<Result<(), QueueError>>> =
            messages.iter().map(|_| None).collect();
        let mut waiting: VecDeque<usize> = (0..messages.len()).collect();
        let mut has_failed = false;
        while !waiting.is_empty() && !has_failed {
            let window = self.take_window(&queue, &messages, &mut waiting);
            let confirmed = self.publish_window(of, &messages, &window).await;
            let mut unconfirmed = Vec::new();
            for (number, is_confirmed) in window.into_iter().zip(confirmed) {
                match is_confirmed {
                    true => results[number] = Some(Ok(())),
                    false => unconfirmed.push(number),
                }
            }
            // Those after the first one are next, together again if it is stored.
            let first = (!unconfirmed.is_empty()).then(|| unconfirmed.remove(0));
            unconfirmed.into_iter().rev().for_each(|number| waiting.push_front(number));
            if let Some(number) = first {
                let result = self.publish_in(of, &messages[number]).await;
                // A message refused for its size does not stop later ones.
                has_failed = result.as_ref().is_err_and(|error| !error.is_permanent());
                results[number] = Some(result);
            }
            let mut refusing = self.refusing.lock();
            match has_failed {
                true => refusing.insert(queue.clone()),
                false => refusing.remove(&queue),
            };
        }
        let behind = || Err(QueueError::Behind { queue: queue.clone() });
        results.into_iter().map(|result| result.unwrap_or_else(behind)).collect()
    }

    /// Returns the session, if it has this generation, or if any will do.
    async fn session_of(&self, generation: Option<u64>) -> Result<Arc<Session>, QueueError> {
        let session = self.session().await?;
        match generation {
            Some(generation) if session.generation() != generation => {
                Err(self.broker.connection_lost("publish").into())
            }
            Some(_) | None => Ok(session),
        }
    }

    /// Takes the numbers of the next messages that are published together.
    fn take_window(
        &self,
        queue: &str,
        messages: &[Outgoing],
        waiting: &mut VecDeque<usize>,
    ) -> Vec<usize> {
        let limit = if self.refusing.lock().contains(queue) { 1 } else { WINDOW };
        let (mut window, mut bytes) = (Vec::new(), 0);
        while let Some(number) = waiting.front()
            && window.len() < limit
        {
            let size = messages[*number].size();
            let fits = size < LARGE && bytes + size <= WINDOW_BYTES;
            if !window.is_empty() && !fits {
                break;
            }
            bytes += size;
            window.extend(waiting.pop_front());
            if size >= LARGE {
                break;
            }
        }
        window
    }

    /// Publishes a window. Returns for each message whether it was confirmed. A window of one message is left to the caller,
    /// which publishes it alone.
    async fn publish_window(
        &self,
        of: Option<u64>,
        messages: &[Outgoing],
        window: &[usize],
    ) -> Vec<bool> {
        let none = vec![false; window.len()];
        if window.len() < 2 {
            return none;
        }
        let Ok(session) = self.session_of(of).await else { return none };
        let window: Vec<_> = window.iter().map(|number| messages[*number].publication()).collect();
        session.publish_window(&window).await
    }

    /// Creates a queue on the broker that is missing.
    async fn create(
        &self,
        session: &Session,
        queue: &QueueName,
        role: &QueueRole,
    ) -> Result<(), AmqpError> {
        let arguments = role.arguments(&self.config(queue));
        declaration::create(session, &role.name(queue), arguments).await
    }

    /// Creates a queue on the broker if it is missing. If the queue exists with other arguments, logs the
    /// difference and uses the queue as it is. A work queue or a delay
    /// queue without the required exclusive order is an error.
    pub(super) async fn declare(
        &self,
        session: &Session,
        queue: &QueueName,
        role: &QueueRole,
    ) -> Result<(), QueueError> {
        let (name, config) = (role.name(queue), self.config(queue));
        let arguments = role.arguments(&config);
        // A delay queue without exclusive order would move its entries to a queue that nobody consumes.
        let is_ordered = matches!(role, QueueRole::Work | QueueRole::Delay(_));
        match declaration::compare(session, &name, arguments.clone()).await? {
            Declaration::Missing => declaration::create(session, &name, arguments).await?,
            Declaration::Same => (),
            Declaration::Differs { reason } if is_ordered && config.exclusive_order => {
                let broker = self.broker.name().to_owned();
                return Err(QueueError::NotExclusive { broker, queue: name, reason });
            }
            Declaration::Differs { reason } => {
                tracing::warn!(
                    "queue `{name}` differs from our declaration and is used as it is; run \
                     `loopabull-host broker plan` for details: {reason}"
                );
                return Ok(());
            }
        }
        if *role == QueueRole::Work {
            self.matching.lock().insert(queue.clone());
        }
        Ok(())
    }

    /// Creates a queue on the broker if it is missing. Does not compare an existing queue with our
    /// declaration. Waits [`RECREATION_DELAY`] before it creates a work queue.
    pub(super) async fn ensure_exists(
        &self,
        session: &Session,
        queue: &QueueName,
        role: &QueueRole,
    ) -> Result<(), QueueError> {
        match self.count(session, queue, role).await? {
            Some(_) => return Ok(()),
            None if *role == QueueRole::Work => tokio::time::sleep(RECREATION_DELAY).await,
            None => (),
        }
        self.declare(session, queue, role).await
    }

    /// Returns the number of entries that wait in a queue on the broker; `None` if the queue does not exist.
    pub(super) async fn count(
        &self,
        session: &Session,
        queue: &QueueName,
        role: &QueueRole,
    ) -> Result<Option<u64>, AmqpError> {
        declaration::count(session, &role.name(queue)).await
    }

    pub(super) fn config(&self, queue: &QueueName) -> QueueConfig {
        let known = self.queues.iter().find(|config| config.name == *queue);
        known.cloned().unwrap_or_else(|| QueueConfig::new(queue.clone()))
    }

    /// Returns whether the queue on the broker is known to have the arguments of our declaration.
    pub(super) fn matches_declaration(&self, queue: &QueueName) -> bool {
        self.matching.lock().contains(queue)
    }

    /// Returns the current problem, if there is one. A problem of the connections comes before a problem of a
    /// queue.
    pub(super) fn problem(&self) -> Option<String> {
        if let Some(problem) = self.supervisor.problem() {
            return Some(format!("RabbitMQ at `{}`: {problem}", self.broker.name()));
        }
        if let Some((queue, problem)) = self.problems.lock().first_key_value() {
            return Some(format!("queue `{queue}` cannot be consumed: {problem}"));
        }
        if let Some(problem) = self.retries.problem() {
            return Some(problem);
        }
        let missing = self.held.missing();
        let ((queue, task), reason) = missing.first_key_value()?;
        let name = QueueRole::Held(task.clone()).name(queue);
        let others = match missing.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        Some(format!("cannot use queue `{name}`{others}: {reason}; {MISSING_EFFECT}"))
    }

    /// Sets or clears the reason why a queue cannot be consumed.
    pub(super) fn set_problem(&self, queue: &QueueName, problem: Option<String>) {
        let mut problems = self.problems.lock();
        match problem {
            Some(problem) => drop(problems.insert(queue.clone(), problem)),
            None => drop(problems.remove(queue)),
        }
    }
}
