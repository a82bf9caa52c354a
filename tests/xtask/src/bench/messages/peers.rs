//! The measurement of other systems. Their tasks do the least that can be counted: Celery and Dramatiq write one byte to a
//! log, the Python loopabull starts `/bin/true`.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loopabull_testbed::Rabbit;

use super::case::Case;
use super::setup::{LIMIT, Sample, Setup, TOPIC, WORKERS};
use crate::bench::workers::Workers;
use crate::command::{command, output};
use crate::python_loopabull::PythonLoopabull;

const CELERY: &str = include_str!("celery_app.py");
const DRAMATIQ: &str = include_str!("dramatiq_app.py");
const QUEUE: &str = "loopabull";
/// Publishes messages to an exchange, and waits for the confirm of each.
const PUBLISH: &str = include_str!("publish.py");
const TICK: Duration = Duration::from_millis(20);

/// Measures Celery or Dramatiq.
pub(super) fn measure(setup: &Setup, case: Case) -> Result<Sample> {
    let folder = setup.folder(&case.slug())?;
    let rabbit = Rabbit::start();
    let (url, log) = (rabbit.vhost().url(), folder.join("log"));
    fs::write(&log, "")?;
    let (file, app) = match case {
        Case::Celery => ("celery_app.py", CELERY),
        _ => ("dramatiq_app.py", DRAMATIQ),
    };
    fs::write(folder.join(file), app)?;
    let messages = case.messages(setup.messages);
    let python = |program: Option<&str>| {
        let mut python = command(&setup.python);
        python.args(program.map(|program| setup.python.with_file_name(program)));
        python.current_dir(&folder).env("BENCH_BROKER", &url).env("BENCH_LOG", &log);
        python.env("PYTHONPATH", &folder);
        python
    };
    output(python(None).arg(file).arg(messages.to_string()))?;
    let mut worker = match case {
        Case::Celery => {
            let mut worker = python(Some("celery"));
            worker.args([
                "-A",
                "celery_app",
                "worker",
                "-c",
                &WORKERS.to_string(),
                "-l",
                "WARNING",
            ]);
            worker
        }
        _ => {
            let mut worker = python(Some("dramatiq"));
            worker.args(["dramatiq_app", "--processes", "2", "--threads", "3"]);
            worker
        }
    };
    let mut workers = Workers::default();
    let sample = watch(setup, &mut workers, &mut worker, &folder, messages, || {
        Ok(fs::metadata(&log)?.len())
    })?;
    drop(workers);
    Ok(sample)
}

/// Measures the Python loopabull.
pub(super) fn loopabull(setup: &Setup) -> Result<Sample> {
    let folder = setup.folder(&Case::Loopabull.slug())?;
    let rabbit = Rabbit::start();
    let vhost = rabbit.vhost();
    fs::write(folder.join("playbooks").join(format!("{TOPIC}.yml")), "")?;
    let loopabull = PythonLoopabull {
        python: &setup.python,
        folder: &folder,
        ansible_playbook: Path::new("/bin/true"),
        port: rabbit.address().port(),
        vhost: &vhost.name,
        topic: TOPIC,
        queue: QUEUE,
    };
    loopabull.write_files()?;
    let messages = Case::Loopabull.messages(setup.messages);
    let mut publish = command(&setup.python);
    publish.args(["-c", PUBLISH, &vhost.url(), QUEUE, "amq.topic", TOPIC, &messages.to_string()]);
    output(&mut publish)?;
    let mut workers = Workers::default();
    for number in 1..WORKERS {
        let log = folder.join(format!("worker-{number}.log"));
        workers.start(&loopabull.worker(), Stdio::null(), log)?;
    }
    // Each run leaves a file of variables.
    let left = folder.join("tmp");
    let mut worker = loopabull.worker();
    let sample = watch(setup, &mut workers, &mut worker, &folder, messages, || {
        Ok(fs::read_dir(&left)?.count() as u64)
    })?;
    drop(workers);
    Ok(sample)
}

/// Starts a worker, and returns the rate from its first message to the last one.
fn watch(
    setup: &Setup,
    workers: &mut Workers,
    worker: &mut std::process::Command,
    folder: &Path,
    messages: u32,
    done: impl Fn() -> Result<u64>,
) -> Result<Sample> {
    workers.start(worker, Stdio::null(), folder.join("worker.log"))?;
    let (start, mut first) = (Instant::now(), None);
    loop {
        let count = done()?;
        let now = Instant::now();
        if count > 0 {
            first.get_or_insert((now, count));
        }
        if count >= u64::from(messages) {
            let (at, before) = first.context("the first look finds a message")?;
            let seconds = (now - at).as_secs_f64().max(TICK.as_secs_f64());
            let count = count.saturating_sub(before).max(1);
            return Ok(Sample { rate: count as f64 / seconds, cpu: None, note: None });
        }
        ensure!(!setup.interrupt.is_set(), "interrupted");
        ensure!(
            start.elapsed() < LIMIT,
            "{count} of {messages} messages, see `{}`",
            folder.display()
        );
        std::thread::sleep(TICK);
    }
}
