//! A burst of fedmsg messages: how many are taken into the queue each second, and how many are dropped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loopabull_testbed::Pki;

use super::case::Case;
use super::host::{Daemon, Queue};
use super::setup::{LIMIT, Sample, Setup, write_messages};
use crate::command::{command, output, spawn};

/// The time that a subscription needs to reach the publisher after the connection.
pub(super) const SUBSCRIPTION: Duration = Duration::from_millis(500);
/// The time for which RabbitMQ is away, besides its start.
const AWAY: Duration = Duration::from_secs(10);
/// The common name of the publisher's certificate.
const SIGNER: &str = "signer.example.org";
/// Signs each line of a file: FOLDER CERTIFICATE FILE.
const SIGN: &str = include_str!("sign.py");
const TICK: Duration = Duration::from_millis(100);

/// A process that is killed on drop.
pub(super) struct Publisher(pub(super) Child);

/// Publishes all messages at once, and waits until each is in the queue or dropped.
pub(super) fn measure(setup: &Setup, case: Case) -> Result<Sample> {
    let (folder, queue) = (setup.folder(&case.slug())?, Queue::start(case.uses_rabbitmq()));
    let messages = write_messages(&folder, 0..setup.messages)?;
    let endpoint = free_endpoint()?;
    let authority = (case == Case::BurstSigned).then(Pki::new);
    let trust = match &authority {
        Some(authority) => {
            sign(setup, authority, &messages)?;
            write_trust(&folder, authority)?
        }
        None => vec!["--unsigned".to_owned()],
    };
    let (_publisher, mut input) = Publisher::start(setup, &endpoint, &messages)?;
    // Only the intake is measured.
    output(setup.host(&folder, queue.url().as_deref()).args(["pause", "--queue", "workers"]))?;
    let mut arguments = vec!["--fedmsg", &endpoint];
    arguments.extend(trust.iter().map(String::as_str));
    let daemon = Daemon::start(setup, &folder, queue.url().as_deref(), &arguments)?;
    wait(setup, || Ok(daemon.status()?["sources"][0]["connected"] == true))?;
    std::thread::sleep(SUBSCRIPTION);

    let before = daemon.look(setup)?;
    let start = Instant::now();
    input.write_all(b"\n").context("the publisher does not read its input")?;
    let (mut queued, mut lost) = (0, 0);
    let mut wait_for = |count: u32| {
        wait(setup, || {
            let metrics = daemon.get("/metrics")?;
            queued = total(&metrics, "loopabull_entries_published_total");
            lost = total(&metrics, "loopabull_envelopes_dropped_total")
                + total(&metrics, "loopabull_entries_lost_total");
            Ok(queued + lost >= u64::from(count))
        })?;
        anyhow::Ok(queued)
    };
    if let Some(rabbit) = queue.rabbit().filter(|_| case == Case::BurstWithoutBroker) {
        let queued = wait_for(setup.messages / 3)?;
        ensure!(queued < u64::from(setup.messages), "too few messages: all were queued at once");
        rabbit.kill();
        std::thread::sleep(AWAY);
        rabbit.restart();
    }
    wait_for(setup.messages)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu = daemon.look(setup)?.cpu_since(before) * 1e6 / f64::from(setup.messages);
    let metrics = daemon.get("/metrics")?;
    let spooled = total(&metrics, "loopabull_entries_spooled_total");
    drop(input);
    daemon.stop()?;
    let note = format!("{lost} of {} dropped, {spooled} through the spool", setup.messages);
    Ok(Sample { rate: queued as f64 / seconds, cpu: Some(cpu), note: Some(note) })
}

/// Signs the messages of a file with the Python fedmsg, in place.
fn sign(setup: &Setup, authority: &Pki, messages: &Path) -> Result<()> {
    authority.leaf(SIGNER, 5);
    authority.revoke(&[], 30);
    let mut sign = command(&setup.fedmsg_python);
    sign.args(["-c", SIGN]).arg(authority.folder()).arg(SIGNER).arg(messages);
    output(&mut sign).map(drop)
}

/// Writes a configuration that trusts the authority, and returns the arguments that name it.
fn write_trust(folder: &Path, authority: &Pki) -> Result<Vec<String>> {
    let file = |name: &str| authority.file(name).display().to_string();
    let text = format!("[fedmsg]\nca = '{}'\ncrl = '{}'\n", file("ca.crt"), file("crl.pem"));
    let path = folder.join("loopabull.toml");
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(vec!["--config".to_owned(), path.display().to_string()])
}

/// Measures a subscriber that does nothing but receive.
pub(super) fn receive(setup: &Setup) -> Result<Sample> {
    let folder = setup.folder(&Case::RawReceive.slug())?;
    let messages = write_messages(&folder, 0..setup.messages)?;
    let endpoint = free_endpoint()?;
    let (_publisher, mut input) = Publisher::start(setup, &endpoint, &messages)?;
    let mut receive = command(&setup.raw);
    receive.arg("receive").arg(&endpoint).arg(setup.messages.to_string());
    let subscriber = spawn(receive.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    std::thread::sleep(SUBSCRIPTION);
    input.write_all(b"\n").context("the publisher does not read its input")?;
    let said = subscriber.wait_with_output().context("the subscriber is lost")?.stdout;
    let said = String::from_utf8_lossy(&said);
    let seconds: f64 = said.trim().parse().with_context(|| format!("`{said}` is no number"))?;
    Ok(Sample { rate: f64::from(setup.messages) / seconds, cpu: None, note: None })
}

/// Returns an address of this machine that nobody uses.
pub(super) fn free_endpoint() -> Result<String> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    Ok(format!("tcp://127.0.0.1:{port}"))
}

/// Returns the sum of a counter over all its labels.
fn total(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole = rest.starts_with('{') || rest.starts_with(' ');
        rest.rsplit_once(' ').filter(|_| is_whole)?.1.parse::<u64>().ok()
    });
    values.sum()
}

fn wait(setup: &Setup, mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_done()? {
        ensure!(!setup.interrupt.is_set(), "interrupted");
        ensure!(start.elapsed() < LIMIT, "not finished after {} s", LIMIT.as_secs());
        std::thread::sleep(TICK);
    }
    Ok(())
}

impl Publisher {
    /// Starts a publisher, which publishes a file after a line on the returned input.
    fn start(setup: &Setup, endpoint: &str, messages: &Path) -> Result<(Self, ChildStdin)> {
        let mut burst = command(&setup.raw);
        burst.arg("burst").arg(endpoint).arg(messages).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut publisher = Self(spawn(&mut burst)?);
        let input = publisher.0.stdin.take().context("standard input is piped")?;
        let said = publisher.0.stdout.take().context("standard output is piped")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).context("the publisher does not start")?;
        Ok((publisher, input))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let metrics =
            "# HELP a_total x\na_total{t=\"x\"} 3\na_total{t=\"y\"} 4\na_total_more 9\nb_total 5\n";
        assert_eq!((total(metrics, "a_total"), total(metrics, "b_total")), (7, 5));
        assert_eq!(total(metrics, "c_total"), 0);
    }
}
