//! Random faults of all kinds while two hosts run messages. No message is lost. The host that is never killed
//! uses hardly more resources when it is idle after the faults than when it was idle before them.

use std::time::{Duration, Instant};

use loopabull_testbed::{Proxy, Rabbit};

use crate::auditor::{Auditor, MIXED};
use crate::test_host::{Daemon, wait_for};

/// The number of the first message that is published before the faults. The messages during the faults have
/// smaller numbers.
const FIRST: usize = 1_000_000;

/// The resources that a daemon uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Resident memory in KiB.
    rss: usize,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    fn of(daemon: &Daemon) -> Self {
        let process = format!("/proc/{}", daemon.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = std::fs::read_dir(format!("{process}/fd")).unwrap().count();
        Self { rss: number("VmRSS:"), descriptors, threads: number("Threads:") }
    }
}

fn check(seconds: u64) {
    let rabbit = Rabbit::start();
    let proxy = Proxy::start(rabbit.address());
    let url = rabbit.vhost().url_at(proxy.address()) + "?heartbeat=2";
    let auditor = Auditor::new(&["--amqp-url", &url], 20);
    let (victim, survivor) = (auditor.host(), auditor.host());
    let killed = auditor.start(&victim, &["--workers", "2"]);
    let living = auditor.start(&survivor, &["--workers", "3"]);
    let messages = usize::try_from(seconds).unwrap() * 10;
    let rest = || {
        living.wait_until_idle_for(Duration::from_secs(300));
        Usage::of(&living)
    };
    // The daemon creates some resources at their first use, so messages run before the first
    // measurement.
    assert!(auditor.publish(&victim, FIRST..FIRST + 60, MIXED));
    auditor.wait_until_done(&victim, 60);
    let before = rest();
    let mut faults = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let killed = auditor.publish_during(&victim, messages, MIXED, || {
        let mut killed = killed;
        let mut chance = u64::from(std::process::id());
        while Instant::now() < end {
            // xorshift64 selects the fault. The order of the faults is printed at the end.
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let fault = chance % 7;
            faults.push(fault);
            match fault {
                0 => {
                    killed.signal("KILL");
                    assert_eq!(killed.wait(), None);
                    killed = start_again(&auditor, &victim);
                }
                1 => {
                    rabbit.kill();
                    rabbit.restart();
                }
                2 => rabbit.close_all_connections("a soak"),
                3 => {
                    proxy.swallow(true);
                    std::thread::sleep(Duration::from_secs(3));
                    proxy.swallow(false);
                }
                4 => {
                    rabbit.set_memory_alarm(true);
                    std::thread::sleep(Duration::from_secs(1));
                    rabbit.set_memory_alarm(false);
                }
                5 => {
                    killed.signal("STOP");
                    std::thread::sleep(Duration::from_secs(5));
                    killed.signal("CONT");
                }
                _ => proxy.cut(),
            }
            std::thread::sleep(Duration::from_secs(2));
        }
        killed
    });
    for daemon in [&killed, &living] {
        wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
        daemon.wait_until_idle_for(Duration::from_secs(300));
    }
    let verdict = auditor.verdict(&victim);
    println!("faults {faults:?}\n{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    let after = rest();
    println!("idle: {before:?} before the faults, {after:?} after them");
    assert!(after.rss <= before.rss * 5 / 4 + (16 << 10), "{before:?} {after:?}");
    assert!(after.descriptors <= before.descriptors + 12, "{before:?} {after:?}");
    assert!(after.threads <= before.threads + 12, "{before:?} {after:?}");
    killed.stop();
    living.stop();
}

/// Starts the daemon as soon as the broker accepts a command, because a daemon does not start without its
/// broker.
fn start_again(auditor: &Auditor, host: &crate::test_host::TestHost) -> Daemon {
    wait_for("the broker to accept a command", || {
        host.run(&auditor.with(&["broker", "plan"])).status.success().then_some(())
    });
    auditor.start(host, &["--workers", "2"])
}

#[test]
fn nothing_is_lost_under_random_faults() {
    check(40);
}

#[test]
#[ignore = "twenty minutes: `cargo xtask soak` runs it"]
fn soak_of_all_faults() {
    check(1200);
}
