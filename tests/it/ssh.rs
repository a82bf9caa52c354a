//! Plays on another machine over real ssh. The machine is an ssh server that the test starts on a free port.
//! A play reaches it only if everything that the connection needs is granted.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use loopabull_model::Run;

use crate::real_plays::told;
use crate::test_host::{TestHost, message, processes_with, text, wait_for};

/// A process that is killed on drop.
struct Process(Child);

/// A test host with an ssh server. Playbooks know the server under two names: `target` has a known host key,
/// `stranger` has none.
struct Site {
    _server: Process,
    host: TestHost,
    port: u16,
}

/// The configuration of the ssh server.
const SERVER: &str = "ListenAddress 127.0.0.1
Port PORT
HostKey FOLDER/ssh/host
AuthorizedKeysFile FOLDER/ssh/authorized_keys
SetEnv HOME=FOLDER/outside
Subsystem sftp internal-sftp
UsePAM no
StrictModes no
PidFile none
";
const INVENTORY: &str = "target ansible_host=127.0.0.1
stranger ansible_host=localhost
[all:vars]
ansible_port=PORT
ansible_user=root
";
/// The manifest key that selects the secret `key` as the private key of ssh.
const WITH_KEY: &str = "private_key = 'key'";

impl Process {
    fn start(command: &mut Command, package: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| {
            panic!("cannot start a program: {error}; apt-get install {package}")
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Site {
    fn start() -> Self {
        let host = TestHost::new();
        fs::create_dir(host.path("ssh")).unwrap();
        // No playbook has a grant for this folder.
        fs::create_dir(host.path("outside")).unwrap();
        for key in ["ssh/host", "ssh/user"] {
            let options = ["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"];
            run(Command::new("ssh-keygen").args(options).arg(host.path(key)));
        }
        fs::copy(host.path("ssh/user.pub"), host.path("ssh/authorized_keys")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = host.path("ssh").parent().unwrap().to_str().unwrap().to_owned();
        let fill = |text: &str| text.replace("PORT", &port.to_string()).replace("FOLDER", &folder);
        let known = fs::read_to_string(host.path("ssh/host.pub")).unwrap();
        host.write("playbooks/known_hosts", fill("[127.0.0.1]:PORT ") + &known);
        host.write("playbooks/away", fill(INVENTORY)).write("ssh/config", fill(SERVER));
        // sshd refuses to start without this folder for its unprivileged processes.
        fs::create_dir_all("/run/sshd").unwrap();
        let log = fs::File::create(host.path("sshd.log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        let command = command.args(["-D", "-e", "-f"]).arg(host.path("ssh/config")).stderr(log);
        let mut server = Process::start(command, "openssh-server");
        wait_for("the ssh server to listen", || {
            let said = fs::read_to_string(host.path("sshd.log")).unwrap();
            assert!(server.0.try_wait().unwrap().is_none(), "{said}");
            said.contains("Server listening").then_some(())
        });
        Self { _server: server, host, port }
    }

    /// Returns the path of a file that a playbook writes on the target.
    fn outside(&self, name: &str) -> PathBuf {
        self.host.path("outside").join(name)
    }

    fn tcp(&self) -> String {
        format!("tcp = [{}]\n", self.port)
    }

    fn key(&self) -> String {
        format!("secrets.key = {{ file = '{}' }}\n", self.host.path("ssh/user").display())
    }

    /// Adds a playbook that writes the addresses of its ssh connection to a file outside all granted folders.
    fn add(&self, name: &str, host: &str, options: &str, grants: &str) {
        let options = format!("[ansible]\ninventory = 'away'\n{options}\n");
        let manifest = format!("{options}[grants]\n{grants}\n[retry]\nmax_attempts = 1\n");
        self.host.write(&format!("playbooks/{name}.toml"), manifest);
        let writes = format!("echo \"$SSH_CONNECTION\" > {}", self.outside(name).display());
        let play =
            format!("- hosts: {host}\n  gather_facts: false\n  tasks:\n    - shell: {writes}\n");
        self.host.write(&format!("playbooks/{name}.yml"), play);
    }

    /// Runs these playbooks and returns their runs in this order.
    fn run<const N: usize>(&self, arguments: &[&str], tasks: [&str; N]) -> [Run; N] {
        let daemon = self.host.start(arguments);
        self.host.inject(&tasks.map(|task| message(&format!("m-{task}"), task, "{}")));
        daemon.wait_until_idle();
        // The process title of an ssh process that shares its connection.
        let master = format!("ssh: {}", self.host.path("state/runs").display());
        assert_eq!(processes_with(&master), 0);
        daemon.stop();
        assert_eq!(processes_with(self.host.path("state/runs").to_str().unwrap()), 0);
        let runs = self.host.runs();
        tasks.map(|task| runs.iter().find(|run| run.task.as_str() == task).unwrap().clone())
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) {
    let output = command.output().expect("cannot run ssh; apt-get install openssh-client");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}

/// Checks the summary of a run, and that its outcome contains a text.
fn check(run: &Run, expected: &str, reason: &str) {
    let said = run.outcome.to_string();
    assert_eq!(told(run), expected, "{}: {said}\n{}", run.task, run.output.text);
    assert!(said.contains(reason), "{}: {said}", run.task);
}

#[test]
fn a_host_is_reached_only_with_its_port_its_host_key_and_our_private_key() {
    let site = Site::start();
    let (tcp, key) = (site.tcp(), site.key());
    site.add("all", "target", WITH_KEY, &format!("{tcp}{key}"));
    site.add("no-port", "target", WITH_KEY, &key);
    site.add("no-key", "target", "", &tcp);
    site.add("stranger", "stranger", WITH_KEY, &format!("{tcp}{key}"));
    site.add("here", "localhost", "", "");
    let tasks = ["all", "no-port", "no-key", "stranger", "here"];
    let [all, no_port, no_key, stranger, here] = site.run(&["--workers", "2"], tasks);
    check(&all, "success, target: ok=1 changed=1", "success");
    let killed = all.playbook.as_ref().unwrap().killed;
    assert_eq!(killed, 1, "the ssh process that shares its connection was not killed");
    let unreachable = "retry, target: unreachable=1";
    let refused = format!("connect to host 127.0.0.1 port {}: Permission denied", site.port);
    check(&no_port, unreachable, &refused);
    check(&no_key, unreachable, "Permission denied (publickey");
    check(&stranger, "retry, stranger: unreachable=1", "Host key verification failed");
    check(&here, "exit, localhost: failed=1", "task `shell` on localhost: non-zero return code");
    let came = fs::read_to_string(site.outside("all")).unwrap();
    let to = format!(" 127.0.0.1 {}\n", site.port);
    assert!(came.starts_with("127.0.0.1 ") && came.ends_with(&to), "{came}");
    let others = ["no-port", "no-key", "stranger", "here"].map(|name| site.outside(name).exists());
    assert_eq!(others, [false; 4]);
}

/// Starts an ssh agent with the key as this user. Runs plays as the same user: one with a grant for the agent
/// and one without a grant.
fn check_agent(user: &str, uid: u32) {
    let site = Site::start();
    site.host.write("loopabull.toml", format!("[playbook]\nuser = '{user}'\n"));
    // The folder of the agent's socket belongs to the user.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    chown(folder.path(), Some(uid), None).unwrap();
    let agent = folder.path().canonicalize().unwrap().join("agent");
    let mut command = Command::new("ssh-agent");
    command.uid(uid).args(["-D", "-a"]).arg(&agent);
    let _agent = Process::start(&mut command, "openssh-client");
    wait_for("the ssh agent to accept a connection", || UnixStream::connect(&agent).ok());
    run(Command::new("ssh-add").arg(site.host.path("ssh/user")).env("SSH_AUTH_SOCK", &agent));
    let grants = format!("{}ssh_agent = '{}'\n", site.tcp(), agent.display());
    site.add("agent", "target", "", &grants);
    site.add("no-agent", "target", "", &site.tcp());
    for (task, outcome) in [("agent", "success"), ("no-agent", "retry: unreachable: ")] {
        site.host.write("message.json", message("m-1", task, "{}"));
        // `SSH_AUTH_SOCK` in the daemon's environment does not grant the agent.
        let mut command =
            site.host.command(&["--config", "loopabull.toml", "test", task, "message.json"]);
        let said = text(&command.env("SSH_AUTH_SOCK", &agent).output().unwrap().stdout);
        let last = said.lines().last().unwrap();
        assert!(last.starts_with(&format!("{task} on message m-1: {outcome}")), "{said}");
        assert_eq!(site.outside(task).exists(), outcome == "success");
    }
    let folders = site.host.path("state/tries");
    assert_eq!(processes_with(folders.to_str().unwrap()), 0, "an ssh process is left");
}

#[test]
fn keys_of_an_ssh_agent_are_used_only_if_the_agent_is_granted() {
    check_agent("root", 0);
}

#[test]
fn plays_of_another_user_use_the_keys_of_its_ssh_agent() {
    // The user id of `nobody` is the same in Debian and Fedora.
    check_agent("nobody", 65534);
}

#[test]
fn plays_of_another_user_reach_a_host_and_only_this_user_can_read_the_key() {
    let site = Site::start();
    site.host.write("loopabull.toml", "[playbook]\nuser = 'nobody'\n");
    site.add("all", "target", WITH_KEY, &(site.tcp() + &site.key()));
    let play = fs::read_to_string(site.host.path("playbooks/all.yml")).unwrap();
    let looks = r#"- hosts: localhost
  gather_facts: false
  tasks:
    - stat: { path: "{{ lookup('env', 'CREDENTIALS_DIRECTORY') }}/key" }
      register: key
    - assert: { that: [key.stat.pw_name == 'nobody', key.stat.mode == '0600'] }
"#;
    site.host.write("playbooks/all.yml", play + looks);
    let [all] = site.run(&["--config", "loopabull.toml"], ["all"]);
    check(&all, "success, localhost: ok=2, target: ok=1 changed=1", "success");
    assert!(site.outside("all").exists());
}
