//! The state that all consumers and publishers of one broker share, and the operations on the queues of the
//! broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use loopabull_amqp::{AmqpError, Broker, Published, Session, Supervisor, Version};
use loopabull_model::{QueueName, TaskName, chain};
use parking_lot::Mutex;

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
    pub(super) held: HeldTasks,
    pub(super) retries: DueRetries,
    supervisor: Supervisor,
    queues: Vec<QueueConfig>,
    /// Queues that are known to exist on the broker with the arguments of our declaration.
    matching: Mutex<BTreeSet<QueueName>>,
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
            held: HeldTasks::default(),
            retries: DueRetries::default(),
            queues: queues.to_vec(),
            matching: Mutex::default(),
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
        for _ in 0..2 {
            let session = self.session().await?;
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
