//! Tests of the commands for a broker. `broker plan` compares the queues on the broker with the
//! configuration. `broker apply` creates missing queues. `check` compares the timeouts of tasks with the
//! broker's acknowledgement timeout.

use loopabull_testbed::{Rabbit, python};

use crate::test_host::{TestHost, message, text, wait_for};

fn run(host: &TestHost, arguments: &[&str], url: &str) -> (i32, String) {
    let output = host.run(&[arguments, &["--amqp-url", url]].concat());
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().unwrap(), all)
}

#[test]
fn plan_changes_nothing_and_apply_creates_missing_queues() {
    let vhost = Rabbit::shared().vhost();
    let (url, host) = (vhost.url(), TestHost::new());
    host.add_guest("good", "x", "queue = 'slow'", "i32.const 0");
    let (code, plan) = run(&host, &["broker", "plan"], &url);
    assert_eq!(code, 0, "{plan}");
    assert_eq!(plan.matches("missing  ").count(), 17, "{plan}");
    assert!(plan.contains("RabbitMQ 3.") || plan.contains("RabbitMQ 4."), "{plan}");
    assert!(plan.contains("missing  slow.wait.10m"), "{plan}");
    assert!(plan.contains("missing  slow.held.good"), "{plan}");
    assert!(plan.contains("x-dead-letter-strategy='at-least-once'"), "{plan}");
    assert_eq!(vhost.list_queues(), "");
    let (code, made) = run(&host, &["broker", "apply"], &url);
    assert_eq!((code, made.matches("created  ").count()), (0, 17), "{made}");
    assert_eq!(vhost.list_queues().lines().count(), 17);
    let (_, plan) = run(&host, &["broker", "plan"], &url);
    assert_eq!(plan.matches("exists  ").count(), 17, "{plan}");
    let json = host.run(&["broker", "plan", "--json", "--amqp-url", &url]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["changes"][0]["state"], "same");
}

#[test]
fn a_first_start_on_an_empty_broker_logs_no_error() {
    let vhost = Rabbit::shared().vhost();
    let (url, host) = (vhost.url(), TestHost::new());
    host.add_guest("good", "x", "queue = 'slow'", "i32.const 0");
    let daemon = host.start(&["--amqp-url", &url]);
    let (_, said) = run(&host, &["send", "x", "{}"], &url);
    assert!(said.contains("is queued for `good`"), "{said}");
    daemon.wait_until_idle();
    daemon.stop();
    for line in host.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let level = line["level"].as_str().unwrap();
        assert!(matches!(level, "INFO" | "DEBUG"), "{line}");
    }
    assert!(host.log().contains("INFO"));
}

#[test]
fn a_queue_that_differs_from_our_declaration_is_reported_and_used() {
    let vhost = Rabbit::shared().vhost();
    let (url, host) = (vhost.url(), TestHost::new());
    host.add_guest("good", "x", "", "i32.const 0");
    let declare = "import sys, pika\n\
        channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()\n\
        channel.queue_declare('workers', durable=True)";
    let made = std::process::Command::new(python()).args(["-c", declare, &url]).status().unwrap();
    assert!(made.success());
    let (code, plan) = run(&host, &["broker", "plan"], &url);
    assert_eq!(code, 0);
    assert!(plan.contains("differs  workers "), "{plan}");
    assert!(plan.contains("PRECONDITION_FAILED - inequivalent arg"), "{plan}");
    assert!(plan.contains("rabbitmqctl set_policy"), "{plan}");
    let daemon = host.start(&["--amqp-url", &url]);
    assert!(host.log().contains("queue `workers` differs from our declaration"), "{}", host.log());
    daemon.stop();
}

/// A user of the broker who may not create queues pauses a task. The queue for its held messages cannot be made.
#[test]
fn a_paused_task_stops_no_other_task_if_its_queue_cannot_be_created() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    run(&TestHost::new(), &["broker", "apply"], &vhost.url());
    let user = format!("user-{}", vhost.name);
    rabbit.ctl(&["add_user", &user, "p"]);
    rabbit.ctl(&["set_permissions", "-p", &vhost.name, &user, "^$", ".*", ".*"]);
    let url = vhost.url().replace("guest:guest", &format!("{user}:p"));
    let host = TestHost::new();
    host.add_guest("good", "x", "", "i32.const 0").add_guest("other", "y", "", "i32.const 0");
    let daemon = host.start(&["--workers", "2", "--amqp-url", &url]);
    let said = "cannot use queue `workers.held.good` and 1 more";
    wait_for("the report", || daemon.get("/readyz").1.contains(said).then_some(()));
    let (code, said) = daemon.get("/readyz");
    assert!(code == 503 && said.contains("broker apply"), "{said}");
    assert!(host.run(&["pause", "--task", "good"]).status.success());
    wait_for("the pause", || daemon.status()["pauses"][0].is_object().then_some(()));
    let messages: Vec<String> = (0..12)
        .map(|number| message(&format!("m-{number}"), ["x", "y"][number % 2], "{}"))
        .collect();
    host.run_with_input(&["inject", "-", "--amqp-url", &url], &messages.join("\n"));
    wait_for("the runs of the other task", || (host.runs().len() == 6).then_some(()));
    wait_for("the other messages", || (daemon.depth("delayed") == Some(6)).then_some(()));
    assert_eq!(host.tally(), [("other success".to_owned(), 6)].into());
    assert_eq!(daemon.depth("dead"), Some(0));
    run(&host, &["broker", "apply"], &vhost.url());
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}

#[test]
fn plan_fails_for_the_embedded_queue() {
    let output = TestHost::new().run(&["broker", "plan"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("the queue is embedded"), "{said}");
}

/// By default RabbitMQ waits 30 minutes for an acknowledgement and then redelivers the message.
#[test]
fn check_reports_a_task_that_may_outlast_the_acknowledgement_timeout() {
    let url = Rabbit::shared().vhost().url();
    // Since 3.12 our queues have a timeout of a day, whatever the broker's is.
    let is_old = Rabbit::shared().lacks_queue_timeouts();
    for (timeout, config, refused) in [
        ("29m", "", false),
        ("30m", "", true),
        ("16m", "prefetch = 2", true),
        ("30m", "consumer_timeout = '1h'", false),
    ] {
        let host = TestHost::new();
        host.add_guest("long", "x", &format!("[limits]\ntimeout = '{timeout}'"), "i32.const 0");
        host.write("loopabull.toml", config);
        let (code, said) = run(&host, &["check", "--config", "loopabull.toml"], &url);
        let refused = refused && is_old;
        assert_eq!(code == 1, refused, "{timeout} {config}: {said}");
        assert_eq!(said.contains("problem: task `long` may run"), refused, "{said}");
        assert_eq!(said.contains("into rabbitmq.conf"), refused, "{said}");
    }
}
