//! A full disk: no new run starts, `/readyz` reports the problem, and runs continue once there is space.

use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_testbed::Rabbit;

use crate::auditor::Auditor;
use crate::test_host::wait_for;

/// A small file system. It is unmounted on drop. Mounting needs root.
pub(crate) struct Small(PathBuf);

impl Small {
    /// Mounts a file system of this size, such as `4m`.
    pub(crate) fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mount.success(), "this test mounts a file system: run it as root");
        Self(path.to_owned())
    }

    /// Fills the remaining space.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [b'x'; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    /// Fills the remaining space but for this number of bytes.
    pub(crate) fn leave(&self, bytes: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let free = space.f_bavail * space.f_frsize;
        let file = std::fs::File::create(self.0.join("filler")).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - bytes).unwrap();
    }

    pub(crate) fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn check(flags: &[&str]) {
    let auditor = Auditor::new(flags, 5);
    let host = auditor.host();
    let small = Small::mount(&host.path("state"), "4m");
    let daemon = auditor.start(&host, &["--workers", "2"]);
    auditor.publish(&host, 0..40, r#"{"sleep_ms":200}"#);
    auditor.wait_for_starts(4);
    small.fill();
    wait_for("readiness to report the full disk", || {
        let (status, reasons) = daemon.get("/readyz");
        (status == 503 && reasons.contains("full")).then_some(())
    });
    let starts = auditor.starts();
    std::thread::sleep(std::time::Duration::from_secs(1));
    // Each worker may already have begun one more run; no other run starts.
    assert!(
        auditor.starts() <= starts + 2,
        "the starts grew from {starts} to {}",
        auditor.starts()
    );
    assert!(auditor.starts() < 40);
    small.empty();
    wait_for("the daemon to become ready", || (daemon.get("/readyz").0 == 200).then_some(()));
    auditor.wait_until_done(&host, 40);
    daemon.wait_until_idle();
    let verdict = auditor.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len(), verdict.dead), (40, 0, 0), "{verdict}");
    daemon.stop();
}

#[test]
fn a_full_disk_stops_runs_and_loses_nothing_with_the_embedded_queue() {
    check(&[]);
}

#[test]
fn a_full_disk_stops_runs_and_loses_nothing_with_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check(&["--amqp-url", &url]);
}
