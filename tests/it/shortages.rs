//! A machine that lacks one thing after the other while messages run: file descriptors, disk space, processes, memory
//! for processes, Ansible; and restarts with another umask and with a closed log. Each message runs exactly once, and no
//! attempt is counted: a message has only one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use loopabull_testbed::Rabbit;

use crate::auditor::Auditor;
use crate::disk_full::Small;
use crate::test_host::{Daemon, TestHost, untried, wait_for};

/// The body of the messages.
const BODY: &str = r#"{"sleep_ms":12}"#;
/// The places of the control groups that limit processes, in versions 1 and 2 of cgroups(7).
const PIDS: [&str; 2] = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
/// The system calls that create processes and threads.
const FORKS: &str = "clone,clone3,fork,vfork";

/// Something that the machine lacks for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shortage {
    Descriptors,
    Disk,
    Memory,
    Processes,
    Program,
}

/// The control group of a daemon, which is removed on drop.
struct ProcessGroup(PathBuf);

impl ProcessGroup {
    /// Creates a group. Returns `None` if this machine has no such hierarchy.
    fn create() -> Option<Self> {
        PIDS.iter().find_map(|place| {
            drop(fs::write(Path::new(place).join("cgroup.subtree_control"), "+pids"));
            let path = Path::new(place).join(format!("loopabull-test-{}", std::process::id()));
            let created = fs::create_dir(&path);
            created.is_ok().then_some(Self(path)).filter(|group| group.0.join("pids.max").exists())
        })
    }

    fn add(&self, daemon: &Daemon) {
        fs::write(self.0.join("cgroup.procs"), daemon.id()).unwrap();
    }

    /// Allows no process or thread besides the threads of the daemon.
    fn close(&self, daemon: &Daemon) {
        let threads = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap().count();
        fs::write(self.0.join("pids.max"), threads.to_string()).unwrap();
    }

    fn open(&self) {
        fs::write(self.0.join("pids.max"), "max").unwrap();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// The parts of a test that shortages act on.
struct Bed<'a> {
    auditor: &'a Auditor,
    host: &'a TestHost,
    state: Small,
    group: Option<ProcessGroup>,
}

impl Bed<'_> {
    /// Starts the daemon through a shell that prepares its environment.
    fn start(&self, shell: &str) -> Daemon {
        let command =
            self.host.command(&self.auditor.with(&["--listen", "127.0.0.1:0", "--workers", "2"]));
        let mut started = Command::new("/bin/sh");
        started.args(["-c", &format!("{shell} exec \"$@\""), "sh"]);
        started.arg(command.get_program()).args(command.get_args());
        started.current_dir(self.host.path("")).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => drop(started.env(name, value)),
                None => drop(started.env_remove(name)),
            }
        }
        let log = fs::File::options().create(true).append(true).open(self.host.path("daemon.log"));
        let daemon = self.host.adopt(started.stderr(log.unwrap()).spawn().unwrap());
        if let Some(group) = &self.group {
            group.add(&daemon);
        }
        wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
        daemon
    }

    /// Begins a shortage. Returns the program that causes it.
    fn begin(&self, shortage: Shortage, daemon: &Daemon) -> Option<Child> {
        match shortage {
            // The kernel's answer to a process that needs more memory than there is for the copy of its page tables.
            Shortage::Memory => {
                let inject = format!("inject={FORKS}:error=ENOMEM");
                let mut strace = Command::new("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={FORKS}")]);
                strace.args(["-e", &inject, "-p", &daemon.id()]);
                let strace = strace.spawn();
                return Some(strace.expect("`cargo xtask test` installs strace"));
            }
            Shortage::Descriptors => self.limit_descriptors_to_open(daemon),
            Shortage::Disk => self.state.fill(),
            Shortage::Processes => self.group.as_ref().unwrap().close(daemon),
            Shortage::Program => fs::rename(self.program(), self.host.path("away")).unwrap(),
        }
        None
    }

    fn end(&self, shortage: Shortage, daemon: &Daemon, program: Option<Child>) {
        if let Some(mut program) = program {
            // A call that is being changed gets its answer before strace ends.
            let pid = program.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
            program.wait().unwrap();
        }
        match shortage {
            Shortage::Memory => (),
            Shortage::Descriptors => self.limit_descriptors(daemon, 1024),
            Shortage::Disk => self.state.empty(),
            Shortage::Processes => self.group.as_ref().unwrap().open(),
            Shortage::Program => fs::rename(self.host.path("away"), self.program()).unwrap(),
        }
    }

    fn limit_descriptors_to_open(&self, daemon: &Daemon) {
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap().count();
        self.limit_descriptors(daemon, open);
    }

    fn limit_descriptors(&self, daemon: &Daemon, limit: usize) {
        let limit = format!("--nofile={limit}:1024");
        let set = Command::new("prlimit").args(["--pid", &daemon.id(), &limit]).status().unwrap();
        assert!(set.success());
    }

    fn program(&self) -> PathBuf {
        self.auditor.script().to_owned()
    }

    /// Lets the machine lack something until readiness tells, and then waits until the daemon is ready again.
    fn play(&self, shortage: Shortage, daemon: &Daemon) {
        println!("{shortage:?}");
        let program = self.begin(shortage, daemon);
        let told = wait_for("readiness to tell", || {
            assert_eq!(self.host.log().matches("panicked").count(), 0, "{}", self.host.log());
            let (status, problems) = daemon.get("/readyz");
            if shortage == Shortage::Descriptors && status == 200 {
                // Descriptors that were open only during the count are free again.
                self.limit_descriptors_to_open(daemon);
            }
            (status == 503).then_some(problems)
        });
        println!("{shortage:?}: {told}");
        std::thread::sleep(Duration::from_millis(300));
        self.end(shortage, daemon, program);
        wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    }
}

/// Runs this number of messages, while each kind of shortage is played this many times.
fn check(flags: &[&str], messages: usize, rounds: usize) {
    let auditor = Auditor::new(flags, 1);
    let host = auditor.host();
    let state = Small::mount(&host.path("state"), "64m");
    let bed = Bed { auditor: &auditor, host: &host, state, group: ProcessGroup::create() };
    let mut shortages =
        vec![Shortage::Descriptors, Shortage::Disk, Shortage::Memory, Shortage::Program];
    match &bed.group {
        Some(_) => shortages.push(Shortage::Processes),
        None => {
            untried("no control group limits processes here, UNTRIED: a machine without processes")
        }
    }
    let daemon = bed.start("");
    let daemon = auditor.publish_during(&host, messages, BODY, || {
        let mut daemon = daemon;
        for round in 0..rounds {
            let mut order = shortages.clone();
            order.rotate_left(round % shortages.len());
            for shortage in order {
                bed.play(shortage, &daemon);
            }
            for shell in ["umask 077;", "umask 000;", "exec 2>&-;"] {
                daemon.stop();
                daemon = bed.start(shell);
            }
        }
        daemon
    });
    daemon.wait_until_idle_for(Duration::from_secs(900));
    let verdict = auditor.verdict(&host);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.confirmed >= messages, "{verdict}");
    let reasons: std::collections::BTreeSet<String> = host
        .runs()
        .iter()
        .filter(|run| run.outcome.is_attempt() && !run.outcome.is_success())
        .map(|run| run.outcome.to_string())
        .collect();
    assert!(reasons.is_empty(), "{verdict}: {reasons:?}");
    assert_eq!(
        (verdict.dead, verdict.duplicated.len(), verdict.over_limit.len()),
        (0, 0, 0),
        "{verdict}"
    );
    assert_eq!(daemon.depth("held"), Some(0));
    let attempts = host.runs().into_iter().filter(|run| run.outcome.is_attempt());
    assert!(attempts.clone().all(|run| run.outcome.is_success() && run.attempt == 1));
    assert!(attempts.count() >= messages);
    daemon.stop();
}

#[test]
fn shortages_cost_no_attempt() {
    check(&[], 60, 1);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_shortages_cost_no_attempt_with_the_embedded_queue() {
    check(&[], 2000, 20);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_shortages_cost_no_attempt_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    check(&["--amqp-url", &vhost.url()], 2000, 20);
}
