//! A host for one test: its own directories, a daemon that uses them, and functions to query the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loopabull_model::Run;
use serde_json::Value;

/// The time after which a test stops waiting for a condition. It is long enough for a busy machine.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(120);

/// The directories of one test.
pub(crate) struct TestHost {
    folder: tempfile::TempDir,
    program: PathBuf,
    /// The user and the group of the daemon and the commands. `None` means those of the test.
    user: Option<u32>,
}

/// A daemon process.
pub(crate) struct Daemon {
    child: Child,
    address: String,
    log: PathBuf,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_loopabull-host").into();
        let host = Self { folder: tempfile::tempdir().unwrap(), program, user: None };
        for folder in ["tasks", "playbooks", "shared"] {
            fs::create_dir(host.path(folder)).unwrap();
        }
        host
    }

    /// Creates a host whose daemon and commands run as a plain user, who owns its directories. Needs root.
    pub(crate) fn of_user(user: u32) -> Self {
        let host = Self::new();
        // Other users may have no access to the directory in which the programs were built.
        fs::create_dir(host.path("bin")).unwrap();
        for program in [&host.program, &Self::launcher()] {
            fs::copy(program, host.path("bin").join(program.file_name().unwrap())).unwrap();
        }
        for folder in ["", "shared"] {
            std::os::unix::fs::chown(host.path(folder), Some(user), Some(user)).unwrap();
        }
        Self { program: host.path("bin/loopabull-host"), user: Some(user), ..host }
    }

    /// Returns the path of the launcher that the daemon under test uses.
    pub(crate) fn launcher() -> PathBuf {
        Path::new(env!("CARGO_BIN_EXE_loopabull-host")).with_file_name("loopabull-launch")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a path that playbooks can read and write.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self.path("shared").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// Adds an example task with its manifest. The manifest is changed to read its secret from this folder.
    pub(crate) fn add_example(&self, name: &str) -> &Self {
        let tasks = repository().join("tasks");
        for ending in ["wasm", "toml"] {
            let file = format!("{name}.{ending}");
            let bytes = fs::read(tasks.join(&file));
            let bytes =
                bytes.unwrap_or_else(|_| panic!("task `{name}` is not built; run `cargo tasks`"));
            self.write(&format!("tasks/{file}"), bytes);
        }
        let token = self.path("pagure.token");
        self.write("pagure.token", "the-token-of-a-test\n");
        let manifest = fs::read_to_string(self.path(&format!("tasks/{name}.toml"))).unwrap();
        let manifest = manifest.replace("/etc/loopabull/pagure.token", token.to_str().unwrap());
        self.write(&format!("tasks/{name}.toml"), manifest)
    }

    /// Adds a component that subscribes to `topic` and whose `handle` has this body in WAT.
    pub(crate) fn add_guest(&self, name: &str, topic: &str, manifest: &str, body: &str) -> &Self {
        let wat = include_str!("../../host/crates/wasm/tests/guests/guest.wat");
        let wasm = wat::parse_str(wat.replace("BODY", body)).unwrap();
        self.write(&format!("tasks/{name}.wasm"), wasm);
        self.write(&format!("tasks/{name}.toml"), format!("topics = ['{topic}']\n{manifest}"))
    }

    /// Adds a playbook whose only play has these tasks, with read and write access to `shared`.
    pub(crate) fn add_playbook(&self, name: &str, manifest: &str, tasks: &str) -> &Self {
        let play = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n";
        self.write(&format!("playbooks/{name}.yml"), format!("{play}{tasks}"));
        let shared = self.path("shared");
        let grant = format!("host = '{}'\naccess = 'read-write'", shared.display());
        let manifest = format!("{manifest}\n[[grants.dirs]]\n{grant}\n");
        self.write(&format!("playbooks/{name}.toml"), manifest)
    }

    /// Returns a command for `loopabull-host` in the folder of the test. Environment variables that would
    /// configure the command are removed.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command.env_remove("LOOPABULL_AMQP_URL").env_remove("RUST_LOG").env("COLUMNS", "100");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, with this standard input, and returns what it printed.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stdout));
        text(&output.stdout)
    }

    /// Publishes messages with `inject`. Each message is a JSON document.
    pub(crate) fn inject(&self, messages: &[String]) {
        self.run_with_input(&["inject", "-"], &messages.join("\n"));
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(&self, arguments: &[&str]) -> Daemon {
        let log = fs::File::options().create(true).append(true).open(self.path("daemon.log"));
        let mut command = self.command(&["--listen", "127.0.0.1:0"]);
        self.adopt(command.args(arguments).stderr(log.unwrap()).spawn().unwrap())
    }

    /// Waits until a daemon that was just started is ready.
    pub(crate) fn adopt(&self, child: Child) -> Daemon {
        let mut daemon = Daemon { child, address: String::new(), log: self.path("daemon.log") };
        let id = Value::from(daemon.child.id());
        let notice = wait_for("the daemon to be ready", || {
            // A daemon may be killed right after it has written its file.
            let ended = daemon.child.try_wait().unwrap();
            let notice = fs::read_to_string(self.path("state/daemon.json")).unwrap_or_default();
            let notice = serde_json::from_str::<Value>(&notice).unwrap_or_default();
            // The file may be that of an earlier daemon, which was killed.
            let is_own = notice["pid"] == id;
            assert!(is_own || ended.is_none(), "the daemon ended: {}", self.log());
            is_own.then_some(notice)
        });
        daemon.address = notice["listen"].as_str().unwrap().to_owned();
        daemon
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// Returns all runs in the journal, newest first.
    pub(crate) fn runs(&self) -> Vec<Run> {
        if !self.path("state/journal.db").exists() {
            return Vec::new();
        }
        let output = self.run(&["runs", "list", "--json", "--limit", "1000000"]);
        let text = text(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the number of runs for each task and outcome. The keys are `task outcome`.
    pub(crate) fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for run in self.runs() {
            *tally.entry(format!("{} {}", run.task, run.outcome.name())).or_default() += 1;
        }
        tally
    }
}

impl Daemon {
    pub(crate) fn id(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a GET request to the operator's port. Returns the status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let url = format!("http://{}{path}", self.address);
        let mut response = ureq::Agent::from(config).get(url).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Sends a GET request with this value of `Authorization`. Returns the status and the body.
    pub(crate) fn get_as(&self, path: &str, authorization: &str) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let url = format!("http://{}{path}", self.address);
        let request = ureq::Agent::from(config).get(url).header("Authorization", authorization);
        let mut response = request.call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Sends a GET request, and returns the headers of the answer, one on each line with its name in lower case.
    pub(crate) fn head(&self, path: &str) -> String {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let url = format!("http://{}{path}", self.address);
        let response = ureq::Agent::from(config).get(url).call().unwrap();
        let line = |(name, value): (&_, &ureq::http::HeaderValue)| {
            format!("{name}: {}\n", value.to_str().unwrap())
        };
        response.headers().iter().map(line).collect()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/v1/status").1).unwrap()
    }

    /// Returns the number of `waiting`, `delayed`, `held`, `claimed` or `dead` entries of the queue
    /// `workers`.
    pub(crate) fn depth(&self, what: &str) -> Option<u64> {
        self.status()["queues"][0][what].as_u64()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()["counts"][name].as_u64().unwrap()
    }

    /// Returns the value of a metric by its full name with labels.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.get("/metrics").1;
        let line = metrics
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|l| l.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    /// Waits until no message waits and no task runs.
    pub(crate) fn wait_until_idle(&self) {
        self.wait_until_idle_for(WAIT_LIMIT);
    }

    /// Waits at most `limit` until no message waits and no task runs.
    pub(crate) fn wait_until_idle_for(&self, limit: Duration) {
        wait_at_most(limit, "all queues to be empty", || {
            let status = self.status();
            let idle = status["workers"].as_array()?.iter().all(|w| w["work"].is_null());
            let is_empty = |queue: &Value| {
                ["waiting", "delayed", "claimed"]
                    .iter()
                    .all(|key| queue[key].as_u64().unwrap_or(0) == 0)
            };
            let queues = status["queues"].as_array()?;
            // A busy broker may not tell the depth of each queue in time.
            let problems = status["problems"].as_array()?;
            let is_unread = |problem: &Value| problem.to_string().contains("cannot read the depth");
            if problems.iter().any(is_unread) {
                return None;
            }
            (idle && !queues.is_empty() && queues.iter().all(is_empty)).then_some(())
        });
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.id()]).status().unwrap();
        assert!(kill.success());
    }

    /// Waits until the daemon has ended. Returns the exit code, or `None` if a signal ended the daemon.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let status = wait_for("the daemon to end", || self.child.try_wait().unwrap());
        status.code()
    }

    /// Drains the daemon, which must exit with code 0.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let log = self.log.clone();
        let code = self.wait();
        assert_eq!(code, Some(0), "{}", fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Counts the processes of this machine with this text in their command line.
pub(crate) fn processes_with(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

/// Says that a part of the test was not tried. The line goes directly to standard error, because the test harness
/// hides the captured output of tests that pass.
pub(crate) fn untried(what: &str) {
    std::io::Write::write_all(&mut std::io::stderr(), format!("{what}\n").as_bytes()).unwrap();
}

/// Waits until `look` returns a value. `what` names the condition in the text of a failure.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_at_most(WAIT_LIMIT, what, look)
}

/// Waits at most `limit` until `look` returns a value.
pub(crate) fn wait_at_most<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the body of a fedmsg message.
pub(crate) fn message(id: &str, topic: &str, msg: &str) -> String {
    format!(r#"{{"topic":"{topic}","msg_id":"{id}","timestamp":1,"i":1,"msg":{msg}}}"#)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn repository() -> &'static Path {
    loopabull_testbed::repository()
}

/// A publisher of arbitrary frames, including frames that the real fedmsg never sends. It can wait for a
/// subscriber.
pub(crate) struct Publisher {
    socket: zmq::Socket,
    pub(crate) endpoint: String,
}

impl Publisher {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        drop(listener);
        Self::start_at(endpoint)
    }

    pub(crate) fn start_at(endpoint: String) -> Self {
        let socket = zmq::Context::new().socket(zmq::XPUB).unwrap();
        socket.set_ipv6(true).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_sndhwm(0).unwrap();
        socket.set_rcvtimeo(i32::try_from(WAIT_LIMIT.as_millis()).unwrap()).unwrap();
        socket.bind(&endpoint).unwrap();
        Self { socket, endpoint }
    }

    pub(crate) fn wait_for_subscriber(&self) {
        assert_eq!(self.socket.recv_bytes(0).unwrap(), b"\x01", "not a subscription to all topics");
    }

    pub(crate) fn send(&self, frames: &[&[u8]]) {
        self.socket.send_multipart(frames, 0).unwrap();
    }
}
