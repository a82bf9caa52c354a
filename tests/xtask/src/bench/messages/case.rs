//! The cases: systems that process messages, and their raw limits.

use clap::ValueEnum;

/// A system that processes messages, or a part of such a system.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Case {
    /// A lapin consumer on a quorum queue that acknowledges each message, 100 in flight
    RawConsume,
    /// The same consumer on a durable classic queue
    RawConsumeClassic,
    /// Bare calls of the component `greet` in fresh instances, one after the other
    RawComponent,
    /// loopabull-host on a RabbitMQ quorum queue
    DrainRabbitMq,
    /// loopabull-host on a durable classic queue of RabbitMQ
    DrainClassic,
    /// SQLite: one row for an entry and one for its run with one index, in groups of 100
    RawSqlite,
    /// loopabull-host on its embedded queue
    DrainEmbedded,
    /// Celery with `acks_late`, five processes, a classic queue; its task writes one byte
    Celery,
    /// Dramatiq, two processes with three threads, a classic queue; its task writes one byte
    Dramatiq,
    /// The Python loopabull with `/bin/true` as its `ansible-playbook`, five processes
    Loopabull,
    /// A lapin publisher with 100 unconfirmed messages
    RawPublish,
    /// `loopabull-host inject` into RabbitMQ
    InjectRabbitMq,
    /// `loopabull-host inject` into the embedded queue
    InjectEmbedded,
    /// A ZeroMQ subscriber that only receives
    RawReceive,
    /// A burst of fedmsg messages into RabbitMQ
    BurstRabbitMq,
    /// A burst of fedmsg messages into RabbitMQ, which is killed in the middle and away for ten seconds
    BurstWithoutBroker,
    /// A burst of fedmsg messages into the embedded queue
    BurstEmbedded,
    /// A burst of signed fedmsg messages into the embedded queue
    BurstSigned,
    /// The RSA operation that verifies a signature, one after the other
    RawVerify,
}

impl Case {
    /// Returns the name of the case in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawConsume => "raw: lapin consumer, 100 in flight, each acknowledged",
            Self::RawConsumeClassic => "raw: lapin consumer, classic queue",
            Self::RawComponent => "raw: calls of `greet`",
            Self::DrainRabbitMq => "loopabull-host, RabbitMQ quorum queue",
            Self::DrainClassic => "loopabull-host, RabbitMQ classic queue",
            Self::RawSqlite => "raw: SQLite, groups of 100",
            Self::DrainEmbedded => "loopabull-host, embedded queue",
            Self::Celery => "Celery 5.7.0, `acks_late`, 5 processes",
            Self::Dramatiq => "Dramatiq 2.2.0, 2 × 3 threads",
            Self::Loopabull => "loopabull 0.0.7 (Python), `/bin/true`, 5 processes",
            Self::RawPublish => "raw: lapin publisher, 100 unconfirmed",
            Self::InjectRabbitMq => "`inject`, RabbitMQ quorum queue",
            Self::InjectEmbedded => "`inject`, embedded queue",
            Self::RawReceive => "raw: ZeroMQ subscriber",
            Self::BurstWithoutBroker => "fedmsg burst, RabbitMQ killed for 10 s",
            Self::BurstRabbitMq => "fedmsg burst, RabbitMQ quorum queue",
            Self::BurstEmbedded => "fedmsg burst, embedded queue",
            Self::BurstSigned => "fedmsg burst, signed, embedded queue",
            Self::RawVerify => "raw: RSA verify",
        }
    }

    /// Returns the short name of the case, which is also the name of its folder.
    pub(super) fn slug(self) -> String {
        self.to_possible_value().expect("each case can be named").get_name().to_owned()
    }

    /// Returns whether the case runs a Python program.
    pub(super) fn is_peer(self) -> bool {
        matches!(self, Self::Celery | Self::Dramatiq | Self::Loopabull)
    }

    /// Returns whether the case needs certificates and a Python with fedmsg, which signs.
    pub(super) fn signs(self) -> bool {
        matches!(self, Self::BurstSigned | Self::RawVerify)
    }

    pub(super) fn uses_rabbitmq(self) -> bool {
        let uses_none = [
            Self::RawComponent,
            Self::RawReceive,
            Self::RawSqlite,
            Self::DrainEmbedded,
            Self::InjectEmbedded,
            Self::BurstEmbedded,
            Self::BurstSigned,
            Self::RawVerify,
        ];
        !uses_none.contains(&self)
    }

    /// Returns the number of messages in a round: a system that is a hundred times slower gets a hundredth.
    pub(super) fn messages(self, messages: u32) -> u32 {
        match self {
            Self::Celery | Self::Dramatiq => (messages / 4).max(10),
            Self::Loopabull => (messages / 100).max(10),
            _ => messages,
        }
    }
}
