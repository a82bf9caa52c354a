//! The fixture of these tests: a shell script that runs in a sandbox, in a temporary folder.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use loopabull_launcher::{
    Confinement, Environment, Files, Layer, LayerState, Limits, Report, Watch, send_plan,
};
use tempfile::TempDir;

pub(crate) const LAUNCHER: &str = env!("CARGO_BIN_EXE_loopabull-launch");

/// The layers to leave out, for tests that run once with namespaces and once without.
pub(crate) const VARIANTS: [&[Layer]; 2] = [&[], &[Layer::Namespaces, Layer::Cgroup]];

/// A confinement of `/bin/sh -c SCRIPT`, with a temporary folder as its working directory.
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) confinement: Confinement,
}

impl Fixture {
    pub(crate) fn new(script: &str, without: &[Layer]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let confinement = Confinement {
            directory: path.clone(),
            home: None,
            tmp: None,
            environment: Vec::new(),
            files: Files { system: true, read: Vec::new(), write: vec![path] },
            tcp: Vec::new(),
            watch: Watch::Nothing,
            landlock_abi: None,
            user: None,
            groups: Vec::new(),
            required: BTreeSet::new(),
            without: without.iter().copied().collect(),
            descriptors: Vec::new(),
            limits: Limits::none(),
            program: "/bin/sh".into(),
            arguments: ["-c", script].map(OsString::from).to_vec(),
        };
        Self { folder, confinement }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(LAUNCHER);
        command.args(self.confinement.to_args());
        command
    }

    /// Starts the launcher with a control socket, as the daemon does. Returns the launcher and our end of the
    /// control socket.
    pub(crate) fn start(&self, descriptors: &[OwnedFd]) -> (Child, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(LAUNCHER)
            .args(["--control", "0"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        send_plan(&ours, &self.confinement, &Environment::new(), &descriptors).unwrap();
        (child, ours)
    }

    /// Runs the script until it ends. Returns the report and the standard output.
    pub(crate) fn run(&self, descriptors: &[OwnedFd]) -> (Vec<Report>, String) {
        let (mut child, control) = self.start(descriptors);
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        child.wait().unwrap();
        let lines = BufReader::new(control).lines();
        (lines.map(|line| line.unwrap().parse().unwrap()).collect(), printed)
    }

    /// Waits until the script has created a file with this name.
    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(|| self.folder.path().join(name).exists());
    }

    /// Returns the number of the script's running processes.
    pub(crate) fn living(&self) -> usize {
        living_in(self.folder.path())
    }
}

pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "the condition is not true within 20 s");
        std::thread::yield_now();
    }
}

/// Returns the number of processes with this working directory. Directories are compared by device and inode,
/// because a private root file system contains another mount of the directory.
pub(crate) fn living_in(folder: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let wanted = fs::metadata(folder).unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let directories = processes.filter_map(|entry| fs::metadata(entry.path().join("cwd")).ok());
    directories.filter(|d| (d.ino(), d.dev()) == (wanted.ino(), wanted.dev())).count()
}

/// Returns the reported state of a layer.
pub(crate) fn state(reports: &[Report], wanted: Layer) -> Option<LayerState> {
    reports.iter().find_map(|report| match report {
        Report::Layer { layer, state, .. } if *layer == wanted => Some(state.clone()),
        _ => None,
    })
}
