//! Tests that compare attempts to escape from the sandbox with a table of expected verdicts.
//!
//! `probe.py` makes about 120 attempts. The attempts are repeated for each Landlock ABI, as on a kernel with
//! that ABI. A line of a table is `VERDICT: NAME`, or `VERDICT, from ABI VERDICT: NAME` if a newer ABI
//! changes the verdict.

#![expect(
    clippy::disallowed_methods,
    reason = "the launcher itself is under test, so nothing can start it but the test"
)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use loopabull_launcher::{Confinement, Files, Layer, Limits, Report, User, Watch};
use rustix::process::geteuid;
use serde_json::{Value, json};

const LAUNCHER: &str = env!("CARGO_BIN_EXE_loopabull-launch");
/// The user ids of the two sandboxes. No other process of the machine has them: the kernel counts the processes of a
/// user, not those of a sandbox.
const USERS: [u32; 2] = [64_001, 64_002];

/// The Landlock ABIs that the tables cover.
const ABIS: std::ops::RangeInclusive<u8> = 1..=7;
/// The first ABI that restricts files without a private root file system.
const FIRST_WITHOUT_ROOT: u8 = 3;

/// The targets of the attempts: files, sockets and a process outside of the sandbox.
struct Outside {
    folder: tempfile::TempDir,
    victim: Child,
    listeners: (TcpListener, TcpListener, UdpSocket),
    _sockets: (UnixListener, UnixListener),
    abstract_name: String,
}

impl Outside {
    fn new(owner: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let give = |path: &Path| chown(path, Some(owner), Some(owner)).unwrap();
        for name in ["run", "ro", "rw", "state", "outside"] {
            fs::create_dir(at(name)).unwrap();
            give(&at(name));
        }
        for (name, text) in
            [("ro/input", "in"), ("state/journal.db", "journal"), ("outside/secret", "s3cret")]
        {
            fs::write(at(name), text).unwrap();
            give(&at(name));
        }
        fs::write(at("ro/probe.py"), include_str!("probe.py")).unwrap();
        for name in ["ro/suid-id", "outside/suid-id"] {
            fs::copy("/usr/bin/id", at(name)).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o4755)).unwrap();
        }
        let path_socket = UnixListener::bind(at("docker.sock")).unwrap();
        give(&at("docker.sock"));
        let abstract_name = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let abstract_socket = UnixListener::bind_addr(&address).unwrap();
        let mut victim = Command::new("/usr/bin/sleep");
        victim.arg("900").env_clear().env("VICTIM_SECRET", "v").env("LAUNCHER_SECRET", "b");
        if geteuid().is_root() {
            victim.uid(owner).gid(owner);
        }
        let local = "127.0.0.1:0";
        let tcp = || TcpListener::bind(local).unwrap();
        Self {
            victim: victim.spawn().unwrap(),
            listeners: (tcp(), tcp(), UdpSocket::bind(local).unwrap()),
            _sockets: (path_socket, abstract_socket),
            abstract_name,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn open_port(&self) -> u16 {
        self.listeners.0.local_addr().unwrap().port()
    }

    fn input(&self) -> Value {
        json!({
            "run_dir": self.path("run"),
            "granted_ro": self.path("ro"),
            "granted_rw": self.path("rw"),
            "state_dir": self.path("state"),
            "outside": self.path("outside"),
            "open_port": self.open_port(),
            "closed_port": self.listeners.1.local_addr().unwrap().port(),
            "udp_port": self.listeners.2.local_addr().unwrap().port(),
            "unix_socket": self.path("docker.sock"),
            "abstract_socket": self.abstract_name,
            "victim_pid": self.victim.id(),
            "parent": true,
            "secret_env": "LAUNCHER_SECRET",
        })
    }

    fn confinement(&self, user: Option<u32>, without: &[Layer], abi: u8) -> Confinement {
        Confinement {
            directory: self.path("run"),
            home: None,
            tmp: None,
            environment: vec!["PATH".into(), "LOOPABULL_PROBE".into()],
            files: Files {
                system: true,
                read: vec![self.path("ro")],
                write: vec![self.path("run"), self.path("rw")],
            },
            tcp: vec![self.open_port()],
            watch: Watch::Nothing,
            landlock_abi: Some(abi),
            user: user.map(|id| User { uid: id, gid: id }),
            groups: Vec::new(),
            required: BTreeSet::new(),
            without: without.iter().copied().collect(),
            descriptors: Vec::new(),
            limits: Limits {
                open_files: Some(1024),
                file_size: Some(1 << 30),
                memory: Some(1 << 30),
                processes: Some(200),
                cpu_seconds: None,
            },
            program: "/usr/bin/python3".into(),
            arguments: vec![self.path("ro/probe.py").into(), "--json".into()],
        }
    }

    /// Runs the probe in a sandbox. Returns the verdicts by the names of the attempts, and the detail that
    /// the launcher reported for the layer `files`.
    fn probe(
        &self,
        user: Option<u32>,
        without: &[Layer],
        abi: u8,
    ) -> (BTreeMap<String, String>, String) {
        let output = Command::new(LAUNCHER)
            .arg("--report")
            .args(self.confinement(user, without, abi).to_args())
            .env("LOOPABULL_PROBE", self.input().to_string())
            .env("PATH", "/usr/bin:/bin")
            .env("LAUNCHER_SECRET", "b")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = said["table"].as_object().unwrap().iter();
        let verdict = |row: &Value| row["verdict"].as_str().unwrap().to_owned();
        let table = rows.map(|(name, row)| (name.clone(), verdict(row))).collect();
        let abi = stderr.lines().find_map(|line| {
            match line.strip_prefix("loopabull-launch: ")?.parse().ok()? {
                Report::Layer { layer: Layer::Files, detail, .. } => Some(detail),
                _ => None,
            }
        });
        (table, abi.unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.victim.kill().ok();
        self.victim.wait().ok();
    }
}

/// Parses a line of a table. Returns the name of the attempt, and its verdict for each ABI.
fn verdicts(line: &str) -> (String, Vec<&str>) {
    let (said, name) = line.split_once(": ").unwrap();
    let mut parts = said.split(", from ");
    let first = parts.next().unwrap();
    let changes = parts.map(|part| part.split_once(' ').unwrap());
    let changes: Vec<(u8, &str)> =
        changes.map(|(abi, verdict)| (abi.parse().unwrap(), verdict)).collect();
    let at = |abi| changes.iter().rev().find(|(from, _)| *from <= abi);
    (name.to_owned(), ABIS.map(|abi| at(abi).map_or(first, |(_, verdict)| verdict)).collect())
}

/// Formats a line of a table, the inverse of [`verdicts`].
fn line(name: &str, first: u8, verdicts: &[String]) -> String {
    let mut line = verdicts[0].clone();
    for (abi, pair) in (first + 1..).zip(verdicts.windows(2)) {
        if pair[0] != pair[1] {
            write!(line, ", from {abi} {}", pair[1]).unwrap();
        }
    }
    format!("{line}: {name}")
}

/// Runs the probe for each ABI of this kernel, and compares the verdicts with the table.
fn check(table: &str, user: Option<u32>, without: &[Layer]) {
    let outside = Outside::new(user.unwrap_or(geteuid().as_raw()));
    let expected: BTreeMap<_, _> = table.lines().map(verdicts).collect();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let first = if without.is_empty() { *ABIS.start() } else { FIRST_WITHOUT_ROOT };
    let skipped = usize::from(first - ABIS.start());
    let mut count = 0;
    for abi in first..=*ABIS.end() {
        let (table, said) = outside.probe(user, without, abi);
        if said != format!("Landlock ABI {abi}") {
            assert!(count > 0, "{said}");
            break;
        }
        count += 1;
        for (name, verdict) in table {
            found.entry(name).or_default().push(verdict);
        }
    }
    let names: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let mut differences = String::new();
    for name in names {
        let found = found.get(name).cloned().unwrap_or_default();
        let expected = expected.get(name).cloned().unwrap_or_default();
        if found.iter().ne(expected.iter().skip(skipped).take(count)) {
            writeln!(differences, "{name}: {expected:?} expected, {found:?} found").unwrap();
        }
    }
    let lines = found.iter().map(|(name, verdicts)| line(name, first, verdicts) + "\n");
    assert!(differences.is_empty(), "{differences}\n{}", lines.collect::<String>());
}

#[test]
fn another_user_in_a_private_root_filesystem_has_the_access_in_the_table() {
    assert!(geteuid().is_root(), "this test must run as root, to start a program as another user");
    check(include_str!("probe/rootfs.txt"), Some(USERS[0]), &[]);
}

/// On a machine without namespaces, only Landlock and the filters of system calls restrict the program.
#[test]
fn another_user_without_namespaces_has_the_access_in_the_table() {
    assert!(geteuid().is_root(), "this test must run as root, to start a program as another user");
    check(include_str!("probe/without-namespaces.txt"), Some(USERS[1]), &[Layer::Namespaces]);
}

/// In the sandbox root has no capabilities, but still owns root's files.
#[test]
fn root_in_a_private_root_filesystem_has_the_access_in_the_table() {
    assert!(geteuid().is_root(), "this test must run as root");
    check(include_str!("probe/root.txt"), None, &[]);
}
