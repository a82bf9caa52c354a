//! One round of `cargo xtask losses`. A system runs messages while a fault strikes repeatedly. Then the round
//! waits until the system is idle, and compares the logs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loopabull_testbed::oracle::Verdict;

use super::host::Host;
use super::log::TaskLog;
use super::moments::Moments;
use super::publisher::Publisher;
use super::setup::Setup;
use super::system::Fault;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// The time limit of a round.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The interval between checks of the log and the workers.
const TICK: Duration = Duration::from_millis(2);
/// The number of messages that the publisher gets at a time.
const BATCH: u64 = 20;
/// The maximum number of published messages whose task has not started. With this limit, messages are
/// published during the whole round.
const AHEAD: u64 = 300;
/// The duration of a memory alarm.
const ALARM: Duration = Duration::from_secs(2);
/// The time without a started task after which the round stops waiting for tasks to start. Lost messages
/// never start.
const STALLED: Duration = Duration::from_secs(60);
/// The time without activity after which a system with an empty queue counts as idle.
const QUIET: Duration = Duration::from_secs(8);
/// The time without activity after which a system with a non-empty queue counts as stuck.
const STUCK: Duration = Duration::from_secs(45);
/// The maximum number of restarts of a stuck system.
const RESTARTS: usize = 2;

/// The settings of each round.
pub(super) struct Plan {
    pub(super) kills: usize,
    pub(super) messages: u64,
    pub(super) seed: u64,
}

/// The result of a round.
pub(super) struct Round {
    pub(super) verdict: Verdict,
    pub(super) kills: usize,
    /// Notes for the text below the table.
    pub(super) notes: Vec<String>,
}

/// The state that the publisher and the fault share.
#[derive(Default)]
struct Shared {
    started: AtomicU64,
    /// Whether the publisher must wait because the broker is down. A batch that is already being published is
    /// not interrupted.
    wait: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Calls `cycle`, which stops and starts the broker. No new messages are published during the call.
    fn without_broker(&self, cycle: impl FnOnce()) {
        self.wait.store(true, Ordering::Relaxed);
        cycle();
        self.wait.store(false, Ordering::Relaxed);
    }
}

/// Stops the publisher on drop: after the last fault, and also after an error.
struct StopFeeding<'a>(&'a Shared);

impl Drop for StopFeeding<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

struct Play<'a> {
    setup: &'a Setup<'a>,
    fault: Fault,
    interrupt: &'a Interrupt,
    host: Host,
    log: TaskLog,
    deadline: Instant,
    progress: Progress,
    kills: usize,
    /// The number of workers that ended without being killed.
    ended: usize,
    notes: Vec<String>,
}

/// Plays a round.
pub(super) fn play(
    setup: &Setup<'_>,
    fault: Fault,
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<Round> {
    let mut play = Play {
        setup,
        fault,
        interrupt,
        host: setup.host()?,
        log: TaskLog::open(&setup.task_log())?,
        deadline: Instant::now() + LIMIT,
        progress: Progress::default(),
        kills: 0,
        ended: 0,
        notes: Vec::new(),
    };
    play.host.start()?;
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(setup.publisher()?, plan.messages, &shared));
        let struck = {
            let _stop = StopFeeding(&shared);
            play.strike_again_and_again(plan, &shared, || feeder.is_finished())
        };
        let fed = feeder.join().ok().context("the publisher's thread panicked")?;
        struck.and(fed)
    })?;
    play.wait_until_idle()?;
    play.finish()
}

impl Play<'_> {
    /// Lets the fault strike at all moments of the plan, and returns once all messages are published too.
    fn strike_again_and_again(
        &mut self,
        plan: &Plan,
        shared: &Shared,
        is_published: impl Fn() -> bool,
    ) -> Result<()> {
        let mut moments = match self.fault {
            Fault::Connections => Moments::every_second(plan.messages),
            _ => Moments::draw(plan.seed, plan.kills, plan.messages),
        };
        while !moments.are_over(self.log.started()) || !is_published() {
            self.look()?;
            shared.started.store(self.log.started(), Ordering::Relaxed);
            if let Some(later) = moments.take(self.log.started()) {
                std::thread::sleep(later);
                self.strike(shared)?;
            } else if is_published() && self.log.quiet() > STALLED {
                self.notes
                    .push("the last faults were left out, because no task was started".into());
                return Ok(());
            }
        }
        Ok(())
    }

    fn strike(&mut self, shared: &Shared) -> Result<()> {
        let rabbit = self.setup.rabbit();
        match self.fault {
            Fault::Host => {
                self.host.kill()?;
                self.host.start()?;
            }
            Fault::Broker => shared.without_broker(|| rabbit.restart()),
            Fault::BrokerStop => shared.without_broker(|| {
                rabbit.stop_app();
                rabbit.start_app();
            }),
            Fault::Connections => rabbit.close_all_connections("closed by `cargo xtask losses`"),
            Fault::MemoryAlarm => {
                rabbit.set_memory_alarm(true);
                let start = Instant::now();
                while start.elapsed() < ALARM {
                    self.look()?;
                }
                rabbit.set_memory_alarm(false);
            }
        }
        self.kills += 1;
        self.log.wake();
        Ok(())
    }

    /// Waits until no message waits and no task runs. A system that is stuck is restarted, at most
    /// [`RESTARTS`] times.
    fn wait_until_idle(&mut self) -> Result<()> {
        let mut restarts = 0;
        let mut asked = Instant::now();
        loop {
            self.look()?;
            if self.log.quiet() < QUIET || asked.elapsed() < Duration::from_secs(1) {
                continue;
            }
            asked = Instant::now();
            let unsettled = self.setup.unsettled();
            if unsettled == Some(0) {
                return Ok(());
            }
            if self.log.quiet() < STUCK {
                continue;
            }
            let unsettled = unsettled.map_or("unknown".into(), |count| count.to_string());
            if restarts == RESTARTS {
                self.notes.push(format!(
                    "{unsettled} messages were still queued or unacknowledged at the end"
                ));
                return Ok(());
            }
            restarts += 1;
            self.notes.push(format!(
                "the system was stuck with {unsettled} unsettled messages and was restarted"
            ));
            for paused in self.setup.resume()? {
                self.notes.push(format!("{paused} was paused and resumed"));
            }
            self.host.kill()?;
            self.host.start()?;
            self.log.wake();
        }
    }

    fn look(&mut self) -> Result<()> {
        ensure!(!self.interrupt.is_set(), "interrupted");
        if Instant::now() >= self.deadline {
            bail!("not finished after {} min", LIMIT.as_secs() / 60);
        }
        std::thread::sleep(TICK);
        self.ended += self.host.supervise()?;
        self.log.read_on()?;
        let hundreds = self.log.ended() / 100 * 100;
        self.progress.show(&format!("{hundreds} tasks, {} kills", self.kills));
        Ok(())
    }

    fn finish(mut self) -> Result<Round> {
        if self.ended > 0 {
            let (ended, workers) = (self.ended, "workers ended by themselves");
            self.notes.push(format!("{ended} {workers} and were started again after 1 s"));
        }
        self.host.kill()?;
        let dead = self.setup.dead_letters()?;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in dead.values() {
            *reasons.entry(reason).or_default() += 1;
        }
        self.notes
            .extend(reasons.iter().map(|(reason, n)| format!("{n} dead letters: `{reason}`")));
        let verdict = self.setup.judge(dead.into_keys())?;
        for (ids, what) in [
            (&verdict.overlapping, "messages ran twice at the same time"),
            (&verdict.unexpected, "messages ran but were never published"),
        ] {
            if !ids.is_empty() {
                self.notes.push(format!("{} {what}", ids.len()));
            }
        }
        Ok(Round { verdict, kills: self.kills, notes: self.notes })
    }
}

/// Publishes the messages. While [`AHEAD`] messages wait for the start of their task, waits for further
/// starts, but not longer than [`STALLED`].
fn feed(mut publisher: Publisher, messages: u64, shared: &Shared) -> Result<()> {
    let mut given = 0;
    let (mut started, mut grown) = (0, Instant::now());
    while given < messages {
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = shared.started.load(Ordering::Relaxed);
        if now != started {
            (started, grown) = (now, Instant::now());
        }
        let enough = given >= started + AHEAD && grown.elapsed() < STALLED;
        if enough || shared.wait.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            continue;
        }
        let next = messages.min(given + BATCH);
        let ids: Vec<String> = (given + 1..=next).map(|number| format!("m-{number}")).collect();
        publisher.publish(&ids)?;
        given = next;
    }
    publisher.finish()
}
