//! The setup of a round: a new folder with the files of a system, and a vhost of the broker.
//!
//! The subfolder `host/` is the working directory of all processes that are killed with the worker host. The
//! logs, the configuration and the program that replaces `ansible-playbook` are outside this subfolder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use loopabull_testbed::oracle::{Oracle, Recorder, Verdict};
use loopabull_testbed::{Rabbit, Vhost};

use super::host::Host;
use super::load::{TOPIC, WORKERS};
use super::ours::Ours;
use super::publisher::Publisher;
use super::system::System;
use crate::command::command;
use crate::python_loopabull::PythonLoopabull;

/// The queue of the Python loopabull.
const QUEUE: &str = "loopabull";

/// The program that the Python loopabull starts as `ansible-playbook`.
const PLAYBOOK: &str = include_str!("loopabull_playbook.sh");
const SCRIPTS: [(&str, &str); 3] = [
    ("celery_app.py", include_str!("celery_app.py")),
    ("publish_celery.py", include_str!("publish_celery.py")),
    ("publish_amqp.py", include_str!("publish_amqp.py")),
];

/// The programs of all systems.
pub(super) struct Programs {
    /// The folder of `loopabull-host` and `loopabull-launch`.
    pub(super) binaries: PathBuf,
    /// A Python interpreter with the Python loopabull and Celery.
    pub(super) python: PathBuf,
}

/// The setup of one round.
pub(super) struct Setup<'a> {
    system: System,
    folder: PathBuf,
    programs: &'a Programs,
    rabbit: &'a Rabbit,
    vhost: Vhost,
    ours: Ours,
}

impl<'a> Setup<'a> {
    /// Creates a new folder with the files of the system, and a new vhost.
    pub(super) fn new(
        system: System,
        folder: PathBuf,
        programs: &'a Programs,
        rabbit: &'a Rabbit,
    ) -> Result<Self> {
        let cannot = || format!("cannot create the empty folder `{}`", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(cannot)?;
        }
        let vhost = rabbit.vhost();
        let url = (system == System::HostRabbit).then(|| vhost.url());
        let ours = Ours::new(&programs.binaries, &folder, url);
        let setup = Self { system, folder, programs, rabbit, vhost, ours };
        setup
            .write_files()
            .with_context(|| format!("cannot write `{}`", setup.folder.display()))?;
        Ok(setup)
    }

    /// Returns the broker.
    pub(super) fn rabbit(&self) -> &Rabbit {
        self.rabbit
    }

    /// Returns the path of the tasks' log.
    pub(super) fn task_log(&self) -> PathBuf {
        Recorder::log(&self.bin())
    }

    /// Returns the worker host. Its workers are not started.
    pub(super) fn host(&self) -> Result<Host> {
        let here = self.folder.join("host");
        let mut workers = match self.system {
            System::HostRabbit | System::HostEmbedded => vec![self.ours.daemon()],
            System::Loopabull => {
                let stand_in = self.stand_in();
                (0..WORKERS).map(|_| self.loopabull(&stand_in).worker()).collect()
            }
            System::CeleryEarly | System::CeleryLate | System::CeleryQuorum => vec![self.celery()],
        };
        for worker in &mut workers {
            let log = self.append("host.log")?;
            let copy = log.try_clone().context("cannot copy a file descriptor")?;
            worker.stdin(Stdio::null()).stdout(log).stderr(copy);
            worker.current_dir(&here).process_group(0);
        }
        Ok(Host::new(here, workers))
    }

    /// Starts the publisher.
    pub(super) fn publisher(&self) -> Result<Publisher> {
        let (log, errors) = (self.ledger(), self.append("publisher.err")?);
        match self.system {
            System::HostRabbit | System::HostEmbedded => {
                Publisher::inject(self.ours.inject(), &log, errors)
            }
            System::Loopabull => {
                let mut publish = self.script("publish_amqp.py");
                publish.args([&self.vhost.url(), QUEUE, "amq.topic", TOPIC]);
                Publisher::script(publish, &log, errors)
            }
            System::CeleryEarly | System::CeleryLate | System::CeleryQuorum => {
                Publisher::script(self.script("publish_celery.py"), &log, errors)
            }
        }
    }

    /// Returns the number of messages that wait or run, or `None` if the number is unknown.
    pub(super) fn unsettled(&self) -> Option<u64> {
        match self.system {
            System::HostEmbedded => self.ours.unsettled(),
            // A delayed message is in a delay queue, whose name begins with the name of the work queue.
            System::HostRabbit => {
                self.queued(|name| name.starts_with("workers") && name != "workers.dead")
            }
            System::Loopabull => self.queued(|name| name == QUEUE),
            System::CeleryEarly | System::CeleryLate | System::CeleryQuorum => {
                self.queued(|name| name == "celery")
            }
        }
    }

    /// Ends all pauses, as an operator would, and returns the names of the paused tasks and queues.
    pub(super) fn resume(&self) -> Result<Vec<String>> {
        if self.system.is_ours() { self.ours.resume() } else { Ok(Vec::new()) }
    }

    /// Returns the dead letters by the ids of their messages, each with its reason. Only
    /// loopabull-host has dead letters.
    pub(super) fn dead_letters(&self) -> Result<BTreeMap<String, String>> {
        if self.system.is_ours() { self.ours.dead_letters() } else { Ok(BTreeMap::new()) }
    }

    /// Returns the verdict on the messages. `dead` are the ids of the dead letters.
    pub(super) fn judge(&self, dead: impl IntoIterator<Item = String>) -> Result<Verdict> {
        let oracle = Oracle::read(&self.ledger(), &self.task_log(), dead);
        // The systems have different limits of attempts, so the limit is not checked.
        Ok(oracle.context("cannot judge the logs")?.check(u32::MAX))
    }

    /// Counts the messages in all queues with a matching name.
    fn queued(&self, is_meant: impl Fn(&str) -> bool) -> Option<u64> {
        let queues = self.vhost.list_queues();
        let queues = queues.lines().filter_map(|line| line.split_once('\t'));
        let mut found = queues.filter(|(name, _)| is_meant(name)).peekable();
        found.peek()?;
        found.map(|(_, count)| count.parse::<u64>().ok()).sum()
    }

    /// Returns the path of the publisher's ledger.
    fn ledger(&self) -> PathBuf {
        self.folder.join("publisher.log")
    }

    fn bin(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn loopabull<'b>(&'b self, ansible_playbook: &'b Path) -> PythonLoopabull<'b> {
        PythonLoopabull {
            python: &self.programs.python,
            folder: &self.folder,
            ansible_playbook,
            port: self.rabbit.address().port(),
            vhost: &self.vhost.name,
            topic: TOPIC,
            queue: QUEUE,
        }
    }

    /// Returns the path of the program that the Python loopabull starts as `ansible-playbook`.
    fn stand_in(&self) -> PathBuf {
        self.bin().join("loopabull_playbook.sh")
    }

    fn celery(&self) -> Command {
        let mut worker = self.python();
        worker.args(["-m", "celery", "--app", "celery_app", "worker", "--pool", "prefork"]);
        worker.args(["--concurrency", &WORKERS.to_string(), "--loglevel", "info"]);
        worker
    }

    fn script(&self, name: &str) -> Command {
        let mut python = self.python();
        python.arg(self.folder.join("scripts").join(name)).current_dir(&self.folder);
        python
    }

    fn python(&self) -> Command {
        let mut python = command(&self.programs.python);
        let acks = if self.system == System::CeleryEarly { "early" } else { "late" };
        let queue = if self.system == System::CeleryQuorum { "quorum" } else { "classic" };
        python.env("PYTHONPATH", self.folder.join("scripts")).env("LOSSES_ACKS", acks);
        python.env("LOSSES_QUEUE", queue);
        python.env("LOSSES_LOG", self.task_log()).env("LOSSES_BROKER", self.vhost.url());
        // Celery warns at each start if it runs as root.
        python.env("C_FORCE_ROOT", "1");
        python
    }

    fn append(&self, name: &str) -> Result<File> {
        let path = self.folder.join(name);
        let file = File::options().create(true).append(true).open(&path);
        file.with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn write_files(&self) -> std::io::Result<()> {
        for folder in ["bin", "host", "playbooks", "scripts", "tasks"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let recorder = Recorder::write(&self.bin());
        let playbook = self.stand_in();
        fs::write(&playbook, PLAYBOOK)?;
        fs::set_permissions(&playbook, fs::Permissions::from_mode(0o755))?;
        for (name, text) in SCRIPTS {
            fs::write(self.folder.join("scripts").join(name), text)?;
        }
        fs::write(self.task_log(), "")?;
        self.loopabull(&playbook).write_files()?;
        self.ours.write_files(&recorder)
    }
}
