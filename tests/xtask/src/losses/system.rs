//! The systems that are compared, and the faults that strike them.

use clap::ValueEnum;

/// A system that runs a task for each message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum System {
    /// loopabull-host with its queue in RabbitMQ
    HostRabbit,
    /// loopabull-host with its embedded queue
    HostEmbedded,
    /// The Python loopabull 0.0.7
    Loopabull,
    /// Celery, which acknowledges before the task
    CeleryEarly,
    /// Celery, which acknowledges after the task
    CeleryLate,
    /// Celery, which acknowledges after the task, with a quorum queue
    CeleryQuorum,
}

/// A fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Fault {
    /// Every process of the worker host is killed
    Host,
    /// The broker is killed
    Broker,
    /// The broker is stopped cleanly and started again
    BrokerStop,
    /// The broker closes all its connections every second
    Connections,
    /// The broker has a memory alarm for a while, and accepts no messages
    MemoryAlarm,
}

impl System {
    /// Returns the name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HostRabbit => "loopabull-host, RabbitMQ",
            Self::HostEmbedded => "loopabull-host, embedded queue",
            Self::Loopabull => "loopabull 0.0.7 (Python), RabbitMQ [1]",
            Self::CeleryEarly => "Celery 5.7.0, `acks_late=False` (default), RabbitMQ",
            Self::CeleryLate => {
                "Celery 5.7.0, `acks_late=True`, `task_reject_on_worker_lost=True`, RabbitMQ"
            }
            Self::CeleryQuorum => {
                "Celery 5.7.0, as before, with `task_default_queue_type=\"quorum\"`, RabbitMQ"
            }
        }
    }

    /// Returns a short name for folders.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::HostRabbit => "host-rabbit",
            Self::HostEmbedded => "host-embedded",
            Self::Loopabull => "loopabull",
            Self::CeleryEarly => "celery-early",
            Self::CeleryLate => "celery-late",
            Self::CeleryQuorum => "celery-quorum",
        }
    }

    /// Returns whether this system is tested with the fault.
    pub(crate) fn can_meet(self, fault: Fault) -> bool {
        match fault {
            Fault::Host => true,
            Fault::Broker => self != Self::HostEmbedded,
            Fault::BrokerStop | Fault::Connections | Fault::MemoryAlarm => self == Self::HostRabbit,
        }
    }

    /// Returns whether the system is loopabull-host.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::HostRabbit | Self::HostEmbedded)
    }
}

impl Fault {
    /// Returns the name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "kill -9 of the worker host",
            Self::Broker => "kill -9 of the broker",
            Self::BrokerStop => "`stop_app`, `start_app` of the broker",
            Self::Connections => "`close_all_connections` every second",
            Self::MemoryAlarm => "memory alarm of the broker for 2 s",
        }
    }

    /// Returns a short name for folders.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Broker => "broker",
            Self::BrokerStop => "broker-stop",
            Self::Connections => "connections",
            Self::MemoryAlarm => "memory-alarm",
        }
    }
}
