//! A full disk: nothing new is started, readiness says so, and all is well when there is room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use loopabull_testbed::Rabbit;

use crate::bed::wait_for;
use crate::witness::Witness;

/// A small file system, mounted for as long as it is there. Needs root.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(path)
            .status()
            .unwrap();
        assert!(mount.success(), "this test mounts a file system: run it as root");
        Self(path.to_owned())
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = [b'x'; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn check(flags: &[&str]) {
    let witness = Witness::new(flags, 5);
    let host = witness.host();
    let small = Small::mount(&host.path("state"));
    let daemon = witness.start(&host, &["--workers", "2"]);
    witness.publish(&host, 0..40, r#"{"sleep_ms":200}"#);
    witness.wait_for_starts(4);
    small.fill();
    wait_for("readiness to tell of it", || {
        let (status, reasons) = daemon.get("/readyz");
        (status == 503 && reasons.contains("full")).then_some(())
    });
    let starts = witness.starts();
    std::thread::sleep(std::time::Duration::from_secs(1));
    // A run that had begun was let start; none begins now.
    assert!(witness.starts() <= starts + 2, "{} after {starts}", witness.starts());
    assert!(witness.starts() < 40);
    small.empty();
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    witness.wait_until_done(&host, 40);
    daemon.wait_until_idle();
    let verdict = witness.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len(), verdict.dead), (40, 0, 0), "{verdict}");
    daemon.stop();
}

#[test]
fn a_full_disk_with_the_embedded_queue() {
    check(&[]);
}

#[test]
fn a_full_disk_with_rabbitmq() {
    let url = Rabbit::shared().vhost().url();
    check(&["--amqp-url", &url]);
}
