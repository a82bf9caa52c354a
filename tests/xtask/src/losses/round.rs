//! One system under one fault: messages come in, what is to die dies at random moments, everything
//! is waited for, and the logs are counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use loopabull_testbed::oracle::Verdict;

use super::bed::Bed;
use super::host::Host;
use super::log::TaskLog;
use super::moments::Moments;
use super::publisher::Publisher;
use super::system::Fault;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// For a whole round.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// How often we look.
const TICK: Duration = Duration::from_millis(2);
/// How many messages are handed to the publisher at a time.
const BATCH: u64 = 20;
/// How many messages are published before they are worked, so that publishing goes on meanwhile.
const AHEAD: u64 = 300;
/// How long the broker has no memory.
const ALARM: Duration = Duration::from_secs(2);
/// Messages that were lost are never started: after this we go on without.
const STALLED: Duration = Duration::from_secs(60);
/// How long nothing may have happened for a system with an empty queue to be idle.
const QUIET: Duration = Duration::from_secs(8);
/// How long nothing may have happened for one whose queue is not empty to be stuck.
const STUCK: Duration = Duration::from_secs(45);
/// How often a system that is stuck is started again.
const RESTARTS: usize = 2;

/// What happens in each round.
pub(super) struct Plan {
    pub(super) kills: usize,
    pub(super) messages: u64,
    pub(super) seed: u64,
}

/// What came of a round.
pub(super) struct Round {
    pub(super) verdict: Verdict,
    pub(super) kills: usize,
    /// What the reader must know to judge the numbers.
    pub(super) notes: Vec<String>,
}

/// What the publisher and the fault know of each other.
#[derive(Default)]
struct Shared {
    started: AtomicU64,
    /// There is no broker to publish to; what is being published now meets its death.
    wait: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    /// Takes the broker away and brings it back; nothing new is published meanwhile.
    fn without_broker(&self, cycle: impl FnOnce()) {
        self.wait.store(true, Ordering::Relaxed);
        cycle();
        self.wait.store(false, Ordering::Relaxed);
    }
}

/// Lets nobody wait for the blows to go on when they are over, by whatever way.
struct StopFeeding<'a>(&'a Shared);

impl Drop for StopFeeding<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

struct Play<'a> {
    bed: &'a Bed<'a>,
    fault: Fault,
    interrupt: &'a Interrupt,
    host: Host,
    log: TaskLog,
    deadline: Instant,
    progress: Progress,
    kills: usize,
    /// How many workers ended without being killed.
    ended: usize,
    notes: Vec<String>,
}

/// Plays a round.
pub(super) fn play(
    bed: &Bed<'_>,
    fault: Fault,
    plan: &Plan,
    interrupt: &Interrupt,
) -> Result<Round> {
    let mut play = Play {
        bed,
        fault,
        interrupt,
        host: bed.host()?,
        log: TaskLog::open(&bed.task_log())?,
        deadline: Instant::now() + LIMIT,
        progress: Progress::default(),
        kills: 0,
        ended: 0,
        notes: Vec::new(),
    };
    play.host.start()?;
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(bed.publisher()?, plan.messages, &shared));
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
    /// Strikes at the moments of the plan, and goes on until everything is published.
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
                self.notes.push("the last blows found nothing to do and were left out".into());
                return Ok(());
            }
        }
        Ok(())
    }

    fn strike(&mut self, shared: &Shared) -> Result<()> {
        let rabbit = self.bed.rabbit();
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
            Fault::Connections => rabbit.close_all_connections("as `cargo xtask losses` asks"),
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

    /// Waits until nothing waits and nothing runs; what is stuck is started again.
    fn wait_until_idle(&mut self) -> Result<()> {
        let mut restarts = 0;
        let mut asked = Instant::now();
        loop {
            self.look()?;
            if self.log.quiet() < QUIET || asked.elapsed() < Duration::from_secs(1) {
                continue;
            }
            asked = Instant::now();
            let unsettled = self.bed.unsettled();
            if unsettled == Some(0) {
                return Ok(());
            }
            if self.log.quiet() < STUCK {
                continue;
            }
            let unsettled = unsettled.map_or("unknown".into(), |count| count.to_string());
            if restarts == RESTARTS {
                self.notes.push(format!("{unsettled} still queued or unacknowledged at the end"));
                return Ok(());
            }
            restarts += 1;
            self.notes.push(format!("stuck with {unsettled} unsettled and started once more"));
            for paused in self.bed.resume()? {
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
            bail!("not done after {} min", LIMIT.as_secs() / 60);
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
        let dead = self.bed.dead_letters()?;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in dead.values() {
            *reasons.entry(reason).or_default() += 1;
        }
        self.notes.extend(reasons.iter().map(|(reason, n)| format!("{n} set aside: `{reason}`")));
        let verdict = self.bed.judge(dead.into_keys())?;
        for (ids, what) in [
            (&verdict.overlapping, "ran twice at the same time"),
            (&verdict.unexpected, "ran and were never published"),
        ] {
            if !ids.is_empty() {
                self.notes.push(format!("{} {what}", ids.len()));
            }
        }
        Ok(Round { verdict, kills: self.kills, notes: self.notes })
    }
}

/// Hands out ids, never many more than have been worked.
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
