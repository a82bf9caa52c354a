//! Plays on another machine, over a real ssh: a server of the test's own, on a free port. Each
//! thing that a connection needs is granted, or the machine is unreachable.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use loopabull_model::Run;

use crate::bed::{Bed, message, processes_with, text, wait_for};
use crate::real_plays::told;

/// A process that ends with its test.
struct Process(Child);

/// A bed with an ssh server, which playbooks know as `target`, and as `stranger` without its key.
struct Site {
    _server: Process,
    bed: Bed,
    port: u16,
}

/// What the server is told to be.
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
/// The secret `key` is the private key.
const WITH_KEY: &str = "private_key = 'key'";

impl Process {
    fn start(command: &mut Command, package: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{error}; apt-get install {package}")))
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
        let bed = Bed::new();
        fs::create_dir(bed.path("ssh")).unwrap();
        // No playbook is granted this one.
        fs::create_dir(bed.path("outside")).unwrap();
        for key in ["ssh/host", "ssh/user"] {
            let options = ["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"];
            run(Command::new("ssh-keygen").args(options).arg(bed.path(key)));
        }
        fs::copy(bed.path("ssh/user.pub"), bed.path("ssh/authorized_keys")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = bed.path("ssh").parent().unwrap().to_str().unwrap().to_owned();
        let fill = |text: &str| text.replace("PORT", &port.to_string()).replace("FOLDER", &folder);
        let known = fs::read_to_string(bed.path("ssh/host.pub")).unwrap();
        bed.write("playbooks/known_hosts", fill("[127.0.0.1]:PORT ") + &known);
        bed.write("playbooks/away", fill(INVENTORY)).write("ssh/config", fill(SERVER));
        // Where the server is without privileges.
        fs::create_dir_all("/run/sshd").unwrap();
        let log = fs::File::create(bed.path("sshd.log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        let command = command.args(["-D", "-e", "-f"]).arg(bed.path("ssh/config")).stderr(log);
        let mut server = Process::start(command, "openssh-server");
        wait_for("the ssh server", || {
            let said = fs::read_to_string(bed.path("sshd.log")).unwrap();
            assert!(server.0.try_wait().unwrap().is_none(), "{said}");
            said.contains("Server listening").then_some(())
        });
        Self { _server: server, bed, port }
    }

    /// What a playbook leaves on the other side.
    fn outside(&self, name: &str) -> PathBuf {
        self.bed.path("outside").join(name)
    }

    fn tcp(&self) -> String {
        format!("tcp = [{}]\n", self.port)
    }

    fn key(&self) -> String {
        format!("secrets.key = {{ file = '{}' }}\n", self.bed.path("ssh/user").display())
    }

    /// Puts a playbook there which writes, outside of all that is granted, how it came to a host.
    fn add(&self, name: &str, host: &str, options: &str, grants: &str) {
        let options = format!("[ansible]\ninventory = 'away'\n{options}\n");
        let manifest = format!("{options}[grants]\n{grants}\n[retry]\nmax_attempts = 1\n");
        self.bed.write(&format!("playbooks/{name}.toml"), manifest);
        let writes = format!("echo \"$SSH_CONNECTION\" > {}", self.outside(name).display());
        let play =
            format!("- hosts: {host}\n  gather_facts: false\n  tasks:\n    - shell: {writes}\n");
        self.bed.write(&format!("playbooks/{name}.yml"), play);
    }

    /// Runs these playbooks and returns their runs in this order.
    fn run<const N: usize>(&self, arguments: &[&str], tasks: [&str; N]) -> [Run; N] {
        let daemon = self.bed.start(arguments);
        self.bed.inject(&tasks.map(|task| message(&format!("m-{task}"), task, "{}")));
        daemon.wait_until_idle();
        // What an ssh calls itself that shares its connection.
        let master = format!("ssh: {}", self.bed.path("state/runs").display());
        assert_eq!(processes_with(&master), 0);
        daemon.stop();
        assert_eq!(processes_with(self.bed.path("state/runs").to_str().unwrap()), 0);
        let runs = self.bed.runs();
        tasks.map(|task| runs.iter().find(|run| run.task.as_str() == task).unwrap().clone())
    }
}

/// Runs a command that must succeed.
fn run(command: &mut Command) {
    let output = command.output().expect("the ssh client is there: apt-get install openssh-client");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}

/// Compares what a run came to, and looks for a text in the reason.
fn check(run: &Run, expected: &str, reason: &str) {
    let said = run.outcome.to_string();
    assert_eq!(told(run), expected, "{}: {said}\n{}", run.task, run.output.text);
    assert!(said.contains(reason), "{}: {said}", run.task);
}

#[test]
fn a_host_is_reached_with_its_port_its_key_and_ours() {
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
    assert_eq!(killed, 1, "the ssh that was to share its connection with the next play");
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

/// Has an agent of this user hold the key, and runs plays as the same user with it and without.
fn check_agent(user: &str, uid: u32) {
    let site = Site::start();
    site.bed.write("loopabull.toml", format!("[playbook]\nuser = '{user}'\n"));
    // The user's own, where it gets to from outside.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    chown(folder.path(), Some(uid), None).unwrap();
    let agent = folder.path().canonicalize().unwrap().join("agent");
    let mut command = Command::new("ssh-agent");
    command.uid(uid).args(["-D", "-a"]).arg(&agent);
    let _agent = Process::start(&mut command, "openssh-client");
    wait_for("the agent", || UnixStream::connect(&agent).ok());
    run(Command::new("ssh-add").arg(site.bed.path("ssh/user")).env("SSH_AUTH_SOCK", &agent));
    let grants = format!("{}ssh_agent = '{}'\n", site.tcp(), agent.display());
    site.add("agent", "target", "", &grants);
    site.add("no-agent", "target", "", &site.tcp());
    for (task, outcome) in [("agent", "success"), ("no-agent", "retry: unreachable: ")] {
        site.bed.write("message.json", message("m-1", task, "{}"));
        // That the daemon has an agent of its own is no grant.
        let mut command =
            site.bed.command(&["--config", "loopabull.toml", "test", task, "message.json"]);
        let said = text(&command.env("SSH_AUTH_SOCK", &agent).output().unwrap().stdout);
        let last = said.lines().last().unwrap();
        assert!(last.starts_with(&format!("{task} on message m-1: {outcome}")), "{said}");
        assert_eq!(site.outside(task).exists(), outcome == "success");
    }
    let folders = site.bed.path("state/tries");
    assert_eq!(processes_with(folders.to_str().unwrap()), 0, "no ssh is left");
}

#[test]
fn keys_of_an_agent_are_used_if_it_is_granted() {
    check_agent("root", 0);
}

#[test]
fn another_user_uses_the_keys_of_its_own_agent() {
    // Debian's and Fedora's number.
    check_agent("nobody", 65534);
}

#[test]
fn another_user_reaches_a_host_too_and_has_the_key_for_itself() {
    let site = Site::start();
    site.bed.write("loopabull.toml", "[playbook]\nuser = 'nobody'\n");
    site.add("all", "target", WITH_KEY, &(site.tcp() + &site.key()));
    let play = fs::read_to_string(site.bed.path("playbooks/all.yml")).unwrap();
    let looks = r#"- hosts: localhost
  gather_facts: false
  tasks:
    - stat: { path: "{{ lookup('env', 'CREDENTIALS_DIRECTORY') }}/key" }
      register: key
    - assert: { that: [key.stat.pw_name == 'nobody', key.stat.mode == '0600'] }
"#;
    site.bed.write("playbooks/all.yml", play + looks);
    let [all] = site.run(&["--config", "loopabull.toml"], ["all"]);
    check(&all, "success, localhost: ok=2, target: ok=1 changed=1", "success");
    assert!(site.outside("all").exists());
}
