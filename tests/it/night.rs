//! A bad night: messages wait, tasks fail, a source is silent, a breaker has opened and the disk is nearly full. Everything
//! that an operator may look at says all of it, and the operator mends it from the page.

use std::time::Duration;

use loopabull_testbed::{Browser, Colours, Rabbit};

use crate::alerts;
use crate::browser::{press_button, wait_until_said};
use crate::disk_full::Small;
use crate::test_host::{Daemon, Publisher, TestHost, message, text, wait_at_most, wait_for};

/// The time after which everything must be said.
const AT_ONCE: Duration = Duration::from_secs(10);
/// The time in which all waiting messages must be worked, also by a debug build on a busy machine.
const DRAINED: Duration = Duration::from_secs(240);

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Of the playbook `bad`, which fails in two ways.
const FAILS: &str = r#"    - fail: { msg: "build {{ msg.n }} is missing" }
      when: msg.kind == "missing"
    - fail: { msg: "cannot reach the hub" }
"#;

struct Night {
    host: TestHost,
    daemon: Daemon,
    publisher: Publisher,
    small: Small,
    waiting: u64,
}

impl Night {
    fn begin(flags: &[&str], waiting: u64) -> Self {
        let host = TestHost::new();
        let small = Small::mount(&host.path("state"), "256m");
        let once = "[retry]\nmax_attempts = 1\n[breaker]\nfailures";
        host.add_guest("good", "org.test.good", "queue = 'builds'", "i32.const 0");
        host.add_guest("broken", "org.test.broken", &format!("{once} = 3"), "unreachable");
        let topics = "topics = ['org.test.bad']\n";
        host.add_playbook("bad", &format!("{topics}{once} = 0"), FAILS);
        let go = host.shared("go");
        let topics = "topics = ['org.test.hang']\nqueue = 'builds'\n";
        let tasks = format!("    - shell: while ! test -e {}; do sleep 0.1; done\n", go.display());
        host.add_playbook("hang", topics, &tasks);
        host.write("operate", TOKEN);
        host.write(
            "loopabull.toml",
            "operate_token_file = 'operate'\n\
             [warnings]\nwait = '2s'\nsilence = '5s'\nfree = '128MiB'\n",
        );
        let publisher = Publisher::start();
        // With two workers, two runs could fail at the moment when the breaker opens.
        let own = ["--config", "loopabull.toml", "--workers", "1", "--unsigned", "--fedmsg"];
        let daemon = host.start(&[&own[..], &[&publisher.endpoint], flags].concat());
        publisher.wait_for_subscriber();
        let night = Self { host, daemon, publisher, small, waiting };
        night.go_wrong(flags);
        night
    }

    fn go_wrong(&self, flags: &[&str]) {
        self.send("m-hang", "org.test.hang", "{}");
        self.send("m-forged", "org.test.good", "{}");
        for n in 1000..1003 {
            let msg = format!(r#"{{"kind":"missing","n":{n}}}"#);
            self.send(&format!("m-missing-{n}"), "org.test.bad", &msg);
            self.send(&format!("m-hub-{n}"), "org.test.bad", r#"{"kind":"hub"}"#);
        }
        for n in 0..5 {
            self.send(&format!("m-broken-{n}"), "org.test.broken", "{}");
        }
        self.send("m-broken-0", "org.test.broken", "{}");
        self.send("m-none", "org.test.goods", "{}");
        self.publisher.send(&[b"org.test.good", message("m-false", "other", "{}").as_bytes()]);
        wait_for("the long run", || {
            self.daemon.get("/api/v1/status").1.contains("m-hang").then_some(())
        });
        let messages: Vec<_> =
            (0..self.waiting).map(|n| message(&format!("m-{n}"), "org.test.good", "{}")).collect();
        self.host.write("messages.json", messages.join("\n"));
        let injected = self.host.run(&[&["inject", "messages.json"], flags].concat());
        assert!(injected.status.success(), "{}", text(&injected.stderr));
        // 9 runs failed; the breaker holds the other two messages.
        wait_for("the failures", || {
            (self.daemon.depth("dead") == Some(9) && self.daemon.depth("held") == Some(2))
                .then_some(())
        });
        self.small.leave(64 << 20);
        // Both limits of time are at most 5 s.
        std::thread::sleep(Duration::from_secs(5));
    }

    fn send(&self, id: &str, topic: &str, msg: &str) {
        self.publisher.send(&[topic.as_bytes(), message(id, topic, msg).as_bytes()]);
    }

    fn at(&self, path: &str) -> String {
        format!("http://operator:{TOKEN}@{}{path}", self.daemon.address())
    }

    /// Each place says all of it.
    fn check_that_all_is_said(&self, browser: &Browser) {
        // `m-forged` is one more of these messages.
        let waiting = self.waiting + 1;
        let backlog = format!("queue `builds`: the oldest of {waiting} waiting messages ");
        let silent = format!("source {}: connected, but no message for ", self.publisher.endpoint);
        let lines = [
            backlog.as_str(),
            "task `bad`: the last 6 runs failed: 3 × ",
            "cannot reach the hub",
            "build … is missing",
            "task `broken` is paused by the breaker: ",
            "task `broken`: the last 3 runs failed: trap: ",
            &silent,
            "state directory: ",
            "its file system has room for only ",
            "queue `workers`: 9 dead letters",
            "queue `workers`: 2 messages are held for task `broken`",
        ];
        let lacks = |said: &str| lines.iter().find(|line| !said.contains(**line)).copied();
        let check = |place: &str, said: &dyn Fn() -> String| {
            wait_at_most(AT_ONCE, place, || {
                let said = said();
                let lacking = lacks(&said);
                if let Some(line) = lacking {
                    println!("{place} lacks `{line}`:\n{said}");
                }
                lacking.is_none().then_some(())
            });
        };
        check("status", &|| text(&self.host.run(&["status"]).stdout));
        check("/readyz", &|| self.daemon.get("/readyz").1);
        check("/warnings", &|| self.daemon.get("/warnings").1);
        browser.open(&format!("http://{}/", self.daemon.address()));
        check("the page", &|| browser.text());
        // The daemon works, so it is ready. The command says so too, and does not only look well.
        assert_eq!(self.daemon.get("/readyz").0, 200);
        assert_eq!(self.daemon.get("/warnings").0, 503);
    }

    /// The metrics say it too. Returns them.
    fn check_metrics(&self) -> String {
        let waiting = format!(
            "loopabull_queue_entries{{queue=\"builds\",state=\"waiting\"}} {}\n",
            self.waiting + 1
        );
        // A busy broker may not tell the depth of each queue in time.
        let metrics = wait_for("complete metrics", || {
            let metrics = self.daemon.get("/metrics").1;
            let is_complete = metrics.contains("\nloopabull_problems 0\n");
            (is_complete && metrics.contains(&waiting)).then_some(metrics)
        });
        let metric = |name: &str| -> f64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().unwrap()
        };
        assert!(metric("loopabull_queue_oldest_entry_age_seconds{queue=\"builds\"}") > 2.0);
        assert_eq!(metric("loopabull_task_failures_in_a_row{task=\"bad\"}"), 6.0);
        assert_eq!(metric("loopabull_pauses{kind=\"task\"}"), 1.0);
        let silence =
            format!("loopabull_source_silence_seconds{{endpoint=\"{}\"}}", self.publisher.endpoint);
        assert!(metric(&silence) > 5.0);
        assert!(metric("loopabull_state_free_bytes") < f64::from(128 << 20));
        for kind in ["disk", "silence", "pause", "failing", "held", "dead", "wait"] {
            assert!(metric(&format!("loopabull_warnings{{kind=\"{kind}\"}}")) >= 1.0, "{kind}");
        }
        metrics
    }

    fn check_explanations(&self) {
        for (id, expected) in [
            ("m-false", "and was rejected: "),
            ("m-broken-0", "It is a duplicate for `broken`"),
            ("m-none", "No task wanted that topic, so nothing ran."),
            ("m-broken-4", "Task `broken` is paused by the breaker since "),
        ] {
            let said = text(&self.host.run(&["explain", id]).stdout);
            assert!(said.contains(expected), "{id}: {said}");
        }
    }

    /// The operator mends the tasks, requeues what is worth it from the page, and drops the rest.
    fn mend(&self, browser: &Browser) {
        self.host.add_playbook("bad", "topics = ['org.test.bad']", "    - debug: { msg: done }\n");
        self.host.add_guest("broken", "org.test.broken", "", "i32.const 0");
        wait_for("the reload", || {
            let log = self.host.log();
            (log.contains("changed: bad, broken") || log.matches("changed: b").count() == 2)
                .then_some(())
        });
        // Everybody may look. Who wants to act is asked for the token.
        browser.open(&format!("http://{}/failures", self.daemon.address()));
        press_button(browser, "cannot reach the hub", "Requeue");
        wait_for("the sign-in", || {
            browser.url().ends_with("/sign-in?to=%2Ffailures").then_some(())
        });
        browser.open(&self.at("/sign-in?to=/failures"));
        assert!(browser.url().ends_with("/failures"), "{}", browser.url());
        press_button(browser, "cannot reach the hub", "Requeue");
        assert!(browser.accept_dialog(None).starts_with("Requeue 3 dead letters of task bad "));
        wait_until_said(browser, "3 dead letters are requeued");
        press_button(browser, "is missing", "Drop");
        assert!(browser.accept_dialog(None).starts_with("Drop 3 dead letters of task bad "));
        wait_until_said(browser, "3 dead letters are dropped");
        press_button(browser, "broken", "Requeue");
        assert!(browser.accept_dialog(None).starts_with("Requeue 3 dead letters of task broken "));
        wait_until_said(browser, "3 dead letters are requeued");
        browser.open(&self.at("/tasks"));
        press_button(browser, "broken", "Resume");
        browser.accept_dialog(None);
        wait_until_said(browser, "task `broken` is resumed");
        self.small.empty();
        std::fs::write(self.host.shared("go"), "").unwrap();
        self.daemon.wait_until_idle_for(DRAINED);
    }

    /// Every message ran, and every place is silent again.
    fn check_that_all_is_well(&self, browser: &Browser) {
        let counts = text(&self.host.run(&["status"]).stdout);
        let runs = self.waiting + 1 + 1 + 3 + 5;
        assert!(counts.contains(&format!("{runs} success")), "{counts}");
        assert!(
            self.host
                .runs()
                .iter()
                .all(|run| !run.task.as_str().starts_with("good") || run.outcome.is_success())
        );
        // The source is not silent as long as it sends.
        let wait_for_quiet = |what: &str, look: &dyn Fn() -> bool| {
            wait_for(what, || {
                self.send("m-morning", "org.test.good", "{}");
                look().then_some(())
            });
        };
        wait_for_quiet("no warnings", &|| self.daemon.get("/warnings").0 == 200);
        wait_for_quiet("readiness", &|| self.daemon.get("/readyz").1 == "ready\n");
        browser.open(&format!("http://{}/", self.daemon.address()));
        wait_for_quiet("the page", &|| browser.text().contains("All is well."));
        assert_eq!(self.daemon.metric("loopabull_task_failures_in_a_row{task=\"bad\"}"), None);
    }

    /// Returns the metrics, at a moment without a warning.
    fn quiet_metrics(&self) -> String {
        wait_for("metrics without a warning", || {
            self.send("m-morning", "org.test.good", "{}");
            let metrics = self.daemon.get("/metrics").1;
            let is_quiet =
                |line: &str| !line.starts_with("loopabull_warnings{") || line.ends_with(" 0");
            metrics.lines().all(is_quiet).then_some(metrics)
        })
    }
}

/// All but those for a daemon that does not work, and for lost messages.
const ALERTS: [&str; 7] = [
    "LoopabullDiskNearlyFull",
    "LoopabullSourceSilent",
    "LoopabullPaused",
    "LoopabullTaskFails",
    "LoopabullMessagesHeld",
    "LoopabullDeadLetters",
    "LoopabullMessagesWait",
];

/// Adds that Prometheus can read the metrics.
fn with_daemon(metrics: &str) -> String {
    format!("{metrics}up{{job=\"loopabull\"}} 1\n")
}

fn check(flags: &[&str], waiting: u64) {
    let night = Night::begin(flags, waiting);
    let browser = Browser::start(1280, 900, Colours::Dark);
    night.check_that_all_is_said(&browser);
    night.check_explanations();
    let bad_night = night.check_metrics();
    night.mend(&browser);
    night.check_that_all_is_well(&browser);
    let morning = night.quiet_metrics();
    alerts::check(&night.host, &with_daemon(&bad_night), &ALERTS);
    alerts::check(&night.host, &with_daemon(&morning), &[]);
    night.daemon.stop();
}

#[test]
fn everything_is_said_and_mended_with_the_embedded_queue() {
    check(&[], 20_000);
}

#[test]
fn everything_is_said_and_mended_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    check(&["--amqp-url", &vhost.url()], 2_000);
}
