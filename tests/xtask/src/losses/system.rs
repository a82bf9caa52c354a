//! Who is compared, and with what it is put to the test.

use clap::ValueEnum;

/// A system that runs a task for each message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum System {
    /// loopabull-host, its queue in RabbitMQ
    HostRabbit,
    /// loopabull-host, its queue in a file
    HostEmbedded,
    /// The Python loopabull 0.0.7
    Loopabull,
    /// Celery, acknowledging before the task
    CeleryEarly,
    /// Celery, acknowledging after the task
    CeleryLate,
    /// Celery, acknowledging after the task, with a quorum queue
    CeleryQuorum,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Fault {
    /// Every process of the worker host is killed
    Host,
    /// The broker is killed
    Broker,
    /// The broker is stopped in good order and started again
    BrokerStop,
    /// The broker closes all its connections, every second
    Connections,
    /// The broker has no memory left for a while, and takes nothing
    MemoryAlarm,
}

impl System {
    /// Returns its name in the table.
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

    /// Returns a name for its folder.
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

    /// Returns whether it can meet the fault.
    pub(crate) fn can_meet(self, fault: Fault) -> bool {
        match fault {
            Fault::Host => true,
            Fault::Broker => self != Self::HostEmbedded,
            Fault::BrokerStop | Fault::Connections | Fault::MemoryAlarm => self == Self::HostRabbit,
        }
    }

    /// Returns whether it is loopabull-host.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::HostRabbit | Self::HostEmbedded)
    }
}

impl Fault {
    /// Returns its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "kill -9 of the worker host",
            Self::Broker => "kill -9 of the broker",
            Self::BrokerStop => "`stop_app`, `start_app` of the broker",
            Self::Connections => "`close_all_connections` every second",
            Self::MemoryAlarm => "memory alarm of the broker for 2 s",
        }
    }

    /// Returns a name for a folder.
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
