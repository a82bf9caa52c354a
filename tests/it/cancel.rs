//! An operator cancels a run in progress: it ends, its message becomes a dead letter, and its worker goes on.

use loopabull_testbed::Rabbit;
use serde_json::{Value, json};

use crate::actions::{OPERATE, act};
use crate::test_host::{Daemon, TestHost, message, text, wait_for};

/// Returns the id of the run of a message, once it is in progress.
fn run_of(daemon: &Daemon, message: &str) -> String {
    wait_for("the run", || {
        let status: Value = serde_json::from_str(&daemon.get("/api/v1/status").1).unwrap();
        let workers = status["workers"].as_array().unwrap().clone();
        let work = workers.into_iter().find(|worker| worker["work"]["message_id"] == message)?;
        work["work"]["run"].as_str().map(str::to_owned)
    })
}

fn check(flags: &[&str]) {
    let host = TestHost::new();
    let policy = "[breaker]\nfailures = 1\n";
    host.add_guest("spins", "spins", policy, "(loop $l br $l) unreachable");
    let alive = host.shared("alive");
    let script = format!(
        "    - shell: 'echo begun; (trap \"\" TERM INT; while true; do date > {0}; sleep 0.1; done) & wait'\n",
        alive.display()
    );
    host.add_playbook("hangs", policy, &script);
    host.add_guest("good", "good", "", "i32.const 0");
    host.write("operate", OPERATE).write("loopabull.toml", "operate_token_file = 'operate'\n");
    let daemon = host.start(&[&["--config", "loopabull.toml", "--workers", "1"], flags].concat());
    let command = |arguments: &[&str]| {
        let output = host.run(arguments);
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    };
    let inject = |lines: &[String]| {
        host.write("messages.json", lines.join("\n"));
        let (code, said) = command(&[&["inject", "messages.json"], flags].concat());
        assert_eq!(code, 0, "{said}");
    };

    // A playbook, with all that it started, by a command.
    inject(&[message("m-1", "hangs", "{}"), message("m-2", "good", "{}")]);
    let run = run_of(&daemon, "m-1");
    wait_for("the process of the playbook", || alive.exists().then_some(()));
    assert!(command(&["status"]).1.contains(&run));
    let (code, said) = command(&["runs", "cancel", &run]);
    assert!(code == 0 && said.contains("its message becomes a dead letter"), "{said}");
    wait_for("the next run", || (host.runs().len() == 2).then_some(()));
    let runs = host.runs();
    let cancelled = runs.iter().find(|run| run.message_id.as_str() == "m-1").unwrap();
    let outcome = cancelled.outcome.to_string();
    assert!(outcome.starts_with("aborted: by command of user "), "{outcome}");
    assert_eq!(cancelled.id.as_str(), run);
    wait_for("the end of all its processes", || {
        let written = || std::fs::metadata(&alive).unwrap().modified().unwrap();
        let before = written();
        std::thread::sleep(std::time::Duration::from_millis(500));
        (written() == before).then_some(())
    });
    let (code, said) = command(&["runs", "cancel", &run]);
    assert!(code == 1 && said.contains("has ended"), "{said}");
    let (code, said) = command(&["runs", "cancel", "nothing"]);
    assert!(code == 1 && said.contains("no run in progress has the id `nothing`"), "{said}");
    assert!(said.contains("hint: list the runs in progress"), "{said}");

    // A component, on the page. The breakers do not count it: it says nothing about the task.
    inject(&[message("m-3", "spins", "{}"), message("m-4", "good", "{}")]);
    let run = run_of(&daemon, "m-3");
    let page = daemon.get("/").1;
    let body = format!("data-body=\"{{&quot;run&quot;:&quot;{run}&quot;}}\"");
    assert!(page.contains("data-post=\"/api/v1/runs/cancel\"") && page.contains(&body), "{page}");
    // Of those who do it at the same time, one has an effect, and the others are told so.
    let answers = std::thread::scope(|scope| {
        let cancel = || act(&daemon, "runs/cancel", &json!({"run": run}));
        let all = [(); 4].map(|()| scope.spawn(cancel));
        all.map(|one| one.join().unwrap())
    });
    let count = |status: u16| answers.iter().filter(|(found, _)| *found == status).count();
    assert_eq!(count(200), 1, "{answers:?}");
    for (status, answer) in answers.iter().filter(|(status, _)| *status != 200) {
        let error = answer["error"].as_str().unwrap();
        let is_clear = error.contains("is already being cancelled by operator's token")
            || error.contains("has ended")
            || error.contains("no run in progress");
        assert!(matches!(status, 404 | 409) && is_clear, "{answers:?}");
    }
    wait_for("the next run", || (host.runs().len() == 4).then_some(()));
    wait_for("the dead letters", || (daemon.depth("dead") == Some(2)).then_some(()));
    let (_, letters) = command(&[&["dead-letters"], flags].concat());
    assert_eq!(letters.matches("aborted: by ").count(), 2, "{letters}");
    assert!(!command(&["status"]).1.contains("paused"));
    let (_, audit) = command(&["audit"]);
    let effects = audit.lines().filter(|line| line.contains("  cancel  ") && line.ends_with("  1"));
    assert_eq!(effects.count(), 2, "{audit}");
    assert_eq!(command(&["failures"]).1.lines().count(), 1, "a cancelled run is no failure");

    daemon.stop();
    let (code, said) = command(&["runs", "cancel", &run]);
    assert!(code == 1 && said.contains("no daemon is running"), "{said}");
}

#[test]
fn a_run_is_cancelled_with_the_embedded_queue() {
    check(&[]);
}

#[test]
fn a_run_is_cancelled_with_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    check(&["--amqp-url", &vhost.url()]);
}
