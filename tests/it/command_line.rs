//! The command line: the output of each command and its exit code.

use std::collections::BTreeSet;

use insta::assert_snapshot;
use loopabull_launcher::Layer;

use crate::test_host::{TestHost, message, text};

/// Runs a command and returns its standard output, standard error and exit code as one text, in
/// which `FOLDER` stands for the directory of the host.
fn session(host: &TestHost, arguments: &[&str]) -> String {
    let output = host.run(arguments);
    let code = output.status.code().unwrap();
    let all = format!("{}{}[exit status {code}]", text(&output.stdout), text(&output.stderr));
    let all: Vec<_> = all.lines().map(without_time).collect();
    let all = all.join("\n");
    all.replace(host.path("").to_str().unwrap().trim_end_matches('/'), "FOLDER")
}

/// Replaces the duration of a run, which is different each time.
fn without_time(line: &str) -> String {
    match line.strip_prefix("used: ").and_then(|used| used.split_once(" of ")) {
        Some((_, rest)) => format!("used: TIME of {rest}"),
        None => line.to_owned(),
    }
}

#[test]
fn the_short_help_names_every_command_and_flag() {
    assert_snapshot!(session(&TestHost::new(), &["-h"]), @"
    Run a task for each message of a bus

    Usage: loopabull-host [OPTIONS] [COMMAND]

    Commands:
      check         Check the configuration, the tasks and the queue
      doctor        Examine what the daemon needs on this machine, and say what to do
      test          Run a task once on a recorded message, without a bus or a queue
      inject        Publish recorded messages to the queue
      send          Publish one message to the queue
      verify        Check the signatures of recorded fedmsg messages
      status        Show queues, workers, sources, pauses and run counts
      runs          List, show, compare, repeat or cancel the runs of this host
      failures      List failed runs in groups, those with the latest runs first
      messages      List the newest messages from the sources, whether or not they ran
      explain       Say why a message ran, or why nothing did
      dead-letters  List, show, requeue or drop dead letters
      pause         Pause a task or a queue until it is resumed
      resume        Resume a paused task or queue, or a stopped worker
      retry         Retry delayed messages now
      audit         List what operators did on this host, newest first
      broker        Show or create the queues on RabbitMQ
      tasks         List the tasks, or create a new one
      help          Print this message or the help of the given subcommand(s)

    Options:
          --config <FILE>            Read settings from this TOML file; flags take precedence
          --tasks <DIR>              Directory of components and their manifests [default: tasks]
          --playbooks <DIR>          Directory of playbooks and their manifests [default: playbooks]
          --state <DIR>              Directory of the journal and the embedded queue [default: state]
          --amqp-url <URL>           Use the queues of this RabbitMQ instead of the embedded queue [env:
                                     LOOPABULL_AMQP_URL]
          --workers <N>              Number of workers for the default queue [default: 5]
          --queue <NAME=N>           Number of workers for a named queue (repeatable)
          --fedmsg <ENDPOINT>        Subscribe to this fedmsg publisher over ZeroMQ (repeatable)
          --fedora-messaging <FILE>  Consume the queues of this fedora-messaging configuration file, for
                                     example /etc/fedora-messaging/config.toml
          --topic <PREFIX>           Subscribe only to fedmsg topics with this prefix (repeatable)
                                     [default: all topics]
          --ca <FILE>                Accept only fedmsg messages that are signed with a certificate
                                     issued by this CA (PEM)
          --crl <FILE>               Certificate revocation list of the CA
          --unsigned                 Accept fedmsg messages without checking their signatures
          --listen <ADDR>            Serve the pages, /api/v1, /livez, /readyz, /warnings and /metrics
                                     on this address [default: 127.0.0.1:8480]
          --role <ROLE>              Part of the work that this daemon does; `ingest` and `work` need
                                     `--amqp-url` [default: all] [possible values: all, ingest, work]
      -h, --help                     Print help (see more with '--help')
      -V, --version                  Print version
    [exit status 0]
    ");
}

#[test]
fn a_source_without_signature_checks_needs_explicit_consent() {
    let said = session(&TestHost::new(), &["--fedmsg", "tcp://127.0.0.1:1"]);
    assert_snapshot!(said, @r#"
    loopabull-host: fedmsg signatures must be checked, but no CA is configured
    hint: name the certificate of the CA with `--ca FILE`, or with `ca` under `[fedmsg]`; to accept unsigned messages from anyone, use `--unsigned` or `verify = "off"`
    [exit status 64]
    "#);
}

#[test]
fn an_unknown_configuration_key_is_reported() {
    let host = TestHost::new();
    host.write("loopabull.toml", "worker = 5\n");
    assert_snapshot!(session(&host, &["--config", "loopabull.toml"]), @"
    loopabull-host: cannot use the configuration `loopabull.toml`: TOML parse error at line 1, column 1
      |
    1 | worker = 5
      | ^^^^^^
    unknown field `worker`, expected one of `workers`, `queues`, `tasks`, `playbooks`, `linked_dirs`, `state`, `listen`, `allowed_hosts`, `token_file`, `operate_token_file`, `amqp_url`, `prefetch`, `management_url`, `consumer_timeout`, `ignore_consumer_timeout`, `grace`, `fedmsg`, `deduplication`, `journal`, `arrivals`, `warnings`, `fedora_messaging`, `fedora_messaging_config`, `datagrepper`, `playbook`, `http`, `publish`, `ceiling`, `refused_tasks`
    [exit status 64]
    ");
    assert_snapshot!(session(&host, &["--config", "missing.toml"]), @"
    loopabull-host: cannot read the configuration `missing.toml`: No such file or directory (os error 2)
    [exit status 64]
    ");
}

#[test]
fn an_unreachable_broker_is_reported_without_its_password() {
    let said =
        session(&TestHost::new(), &["--amqp-url", "amqp://u:secret@127.0.0.1:1/v", "status"]);
    assert!(said.contains("RabbitMQ at `127.0.0.1:1/v`: cannot connect"), "{said}");
    assert!(!said.contains("secret"));
}

#[test]
fn check_shows_topics_limits_and_grants_of_each_task() {
    let host = TestHost::new();
    host.add_guest("a.component", "org.*.thing.#", "[limits]\ntimeout = '5s'", "i32.const 0");
    host.add_guest("both", "b", "", "i32.const 0");
    host.write("playbooks/both.yml", "- hosts: localhost\n");
    host.add_playbook("org.example.play", "", "    - debug: { msg: x }\n");
    let said = session(&host, &["check"]);
    // Machines differ in the available layers, so the test compares only the names of the layers.
    let (layers, rest): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| is_about_a_layer(line));
    let layers = layers.iter().filter_map(|line| line.split(' ').next());
    let names = Layer::ALL.map(Layer::name);
    assert_eq!(layers.collect::<BTreeSet<_>>(), names.into_iter().chain(["LAYER"]).collect());
    assert_snapshot!(rest.join("\n"), @"
    TASK              KIND       TOPICS            QUEUE    TIMEOUT  MEMORY    ATTEMPTS  GRANTS
    a.component       component  org.*.thing.#     workers  5s       64.0 MiB  5         none
    both              component  b                 workers  30s      64.0 MiB  5         none
    org.example.play  playbook   org.example.play  workers  15m      1.0 GiB   5         dirs
    `org.example.play` may
      read and write files in FOLDER/shared
    note: `tasks/both.wasm`: playbook `both.yml` is ignored, because a component has the same name
    no problems found
    [exit status 0]
    ");
}

fn is_about_a_layer(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    name == "LAYER" || name.parse::<Layer>().is_ok()
}

#[test]
fn check_fails_if_a_task_cannot_run() {
    let host = TestHost::new();
    host.write("tasks/empty.wasm", "(module)");
    host.write("tasks/world.wasm", wat::parse_str("(component)").unwrap());
    host.write("tasks/key.wasm", "").write("tasks/key.toml", "topic = 'x'");
    host.write("playbooks/alone.toml", "");
    host.write("playbooks/broken.yml", "- hosts: [\n");
    let said = session(&host, &["check"]);
    for part in [
        "problem: `empty.wasm`: the file is not a component: magic header not detected",
        "problem: `world.wasm`: the component does not export `loopabull:task/handler@0.1.0`, so it is not a task; build the component",
        "unknown field `topic`",
        "note: `playbooks/alone.toml`: ignored, because `alone.yml` does not exist",
        "problem: `broken.yml`: unreadable: exit status 4, the output says why",
        "[exit status 1]",
    ] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
}

#[test]
fn test_runs_a_task_on_a_message_without_a_queue() {
    let host = TestHost::new();
    host.add_guest("good", "x", "", "i32.const 0").add_guest("bad", "y", "", "i32.const 96");
    host.add_guest("worse", "y", "", "unreachable");
    host.write("x.json", message("m-1", "x", "{}"));
    assert_snapshot!(session(&host, &["test", "x", "x.json"]), @"
    used: TIME of 30s, 64.0 KiB of 64.0 MiB, 0 host calls
    good on message m-1: success
    [exit status 0]
    ");
    assert_snapshot!(session(&host, &["test", "bad", "x.json"]), @"
    used: TIME of 30s, 64.0 KiB of 64.0 MiB, 0 host calls
    bad on message m-1: reject: no good
    [exit status 1]
    ");
    assert_snapshot!(session(&host, &["test", "y", "x.json"]), @"
    loopabull-host: several tasks subscribe to topic `y`
    hint: use the name of one of them: bad, worse
    [exit status 1]
    ");
    assert_snapshot!(session(&host, &["test", "z", "x.json"]), @"
    loopabull-host: no task has the name or the topic `z`
    hint: list the tasks with `loopabull-host tasks`
    [exit status 1]
    ");
    host.write("none.json", "");
    assert_snapshot!(session(&host, &["test", "x", "none.json"]), @"
    loopabull-host: cannot use `none.json`: the file contains no JSON document
    [exit status 1]
    ");
}

#[test]
fn messages_are_sent_by_hand_and_in_every_form() {
    let host = TestHost::new();
    let once = "[retry]\nmax_attempts = 1\n";
    host.add_guest("good", "x", "", "i32.const 0").add_guest("fails", "*", once, "unreachable");
    let [a, b] = ["m-1", "m-2"].map(|id| message(id, "x", "{}"));
    let answer = format!("\u{feff}{{\"count\":1,\"raw_messages\":[{a}]}}\n[{b}]");
    host.write("answer.json", answer);
    assert_snapshot!(session(&host, &["inject", "--dry-run", "answer.json"]), @"
    message m-1: task `fails`
    message m-1: task `good`
    message m-2: task `fails`
    message m-2: task `good`
    2 messages, 4 entries to queue, 0 rejected
    [exit status 0]
    ");
    assert!(!host.path("state").exists(), "a dry run must write nothing");
    let dry = session(&host, &["send", "x", "{}", "--dry-run"]);
    assert!(
        dry.ends_with(": task `good`\n[exit status 0]") && !host.path("state").exists(),
        "{dry}"
    );
    assert_snapshot!(session(&host, &["send", "no.task", "{}"]), @"
    no task subscribes to topic `no.task`
    [exit status 3]
    ");
    assert_snapshot!(session(&host, &["send", "x", "{"]), @"
    loopabull-host: cannot make a message: body is not JSON: EOF while parsing an object at line 1 column 1
    [exit status 1]
    ");
    assert_snapshot!(session(&host, &["send", "../x"]), @"
    error: invalid value '../x' for '<TOPIC>': topic `../x` has the forbidden character '/'

    For more information, try '--help'.
    [exit status 2]
    ");
    assert_snapshot!(session(&host, &["--listen", "0.0.0.0"]), @"
    error: invalid value '0.0.0.0' for '--listen <ADDR>': the port is missing; write `0.0.0.0:8480`

    For more information, try '--help'.
    [exit status 2]
    ");
    assert_snapshot!(session(&host, &["--unsigned", "--fedmsg", "127.0.0.1:1"]), @"
    loopabull-host: `127.0.0.1:1` is not the address of a fedmsg publisher: it does not begin with `tcp://` or `ipc://`
    hint: write an address as `tcp://HOST:PORT` or `tcp://[IPV6]:PORT`
    [exit status 64]
    ");
    assert_snapshot!(session(&host, &["inject", "answer.json"]), @"
    2 messages, 4 entries queued, 0 rejected
    [exit status 0]
    ");
    let sent = session(&host, &["send", "x", r#"{"n": 1}"#, "--header", "a=b=c"]);
    assert!(sent.ends_with(" is queued for `fails`, `good`\n[exit status 0]"), "{sent}");
    let daemon = host.start(&[]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(host.tally(), [("fails trap".into(), 3), ("good success".into(), 3)].into());
    let letters = session(&host, &["dead-letters", "list", "--json"]);
    assert_eq!(letters.matches(r#""headers":[["a","b=c"]]"#).count(), 1, "{letters}");
}

#[test]
fn nothing_is_published_if_a_directory_of_tasks_cannot_be_read() {
    let host = TestHost::new();
    host.add_guest("a", "a", "", "i32.const 0");
    host.write("loopabull.toml", "playbooks = 'nodri'\n");
    host.write("message.json", message("m-1", "a", "{}"));
    for command in [&["inject", "message.json"][..], &["send", "a", "{}"]] {
        let output = host.run(&[&["--config", "loopabull.toml"], command].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot know which tasks want a message: `nodri`: "), "{said}");
    }
    assert!(!host.path("state/journal.db").exists());
}

#[test]
fn injected_messages_wait_until_a_daemon_processes_them() {
    let host = TestHost::new();
    host.add_guest("good", "x", "", "i32.const 0");
    let archive = r#"{"body":{},"headers":{},"id":"m-2","queue":null,"topic":"x"}"#;
    let both = format!("{}\n{archive}\n", message("m-1", "x", "{}"));
    host.write("two.json", both).write("bad.json", r#"{"topic":"x"}"#);
    host.write("unwanted.json", message("m-3", "nobody", "{}"));
    assert_snapshot!(session(&host, &["runs"]), @"
    loopabull-host: `state` contains no journal
    hint: name the daemon's state directory with `--state`
    [exit status 1]
    ");
    assert_snapshot!(session(&host, &["inject", "two.json", "unwanted.json"]), @"
    no task subscribes to topic `nobody` (1 message)
    3 messages, 2 entries queued, 0 rejected
    [exit status 3]
    ");
    assert_snapshot!(session(&host, &["inject", "bad.json"]), @"
    rejected: `bad.json`, message 1: body does not have the form of a message: it needs either `msg` (fedmsg) or `body` (fedora-messaging)
    0 messages, 0 entries queued, 1 rejected
    [exit status 1]
    ");
    let status = session(&host, &["status"]);
    let line = status.lines().find(|line| line.starts_with("workers")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((cells[1], cells.last()), ("2", Some(&"0")), "{status}");

    let daemon = host.start(&["--workers", "2"]);
    daemon.wait_until_idle();
    assert_snapshot!(session(&host, &["status"]), @"
    daemon   ready
    WORKER  QUEUE    TASK  MESSAGE  ATTEMPT  SECONDS  RUN
    1       workers  idle
    2       workers  idle
    QUEUE    WAITING  OLDEST  EMPTY IN  DELAYED  HELD  RUNNING  DEAD LETTERS
    workers  0        -       -         0        0     0        0
    runs     2 success
    [exit status 0]
    ");
    let id = host.runs()[0].id.to_string();
    let shown = session(&host, &["runs", "show", &id]);
    assert!(shown.contains("outcome  success") && shown.contains("task     good (component)"));
    assert_snapshot!(session(&host, &["runs", "show", "none"]), @"
    loopabull-host: no run has the id `none`
    hint: list recent runs with `loopabull-host runs list`
    [exit status 1]
    ");
    daemon.stop();
}

/// Messages for tasks in a directory that is not read would be dropped or fail.
#[test]
fn a_directory_of_tasks_that_cannot_be_read_is_an_error_at_start() {
    let host = TestHost::new();
    let start =
        |arguments: &[&str]| session(&host, &[&["--listen", "127.0.0.1:0"], arguments].concat());
    let expected =
        "cannot use the directory `nodri` of tasks: cannot open the directory: No such file";
    for flag in ["--tasks", "--playbooks"] {
        let said = start(&[flag, "nodri"]);
        assert!(said.contains(expected) && said.contains("[exit status 64]"), "{said}");
    }
    // A default directory may be missing, but not be something else.
    std::fs::remove_dir(host.path("tasks")).unwrap();
    host.write("tasks", "");
    let said = start(&[]);
    assert!(said.contains("cannot use the directory `tasks` of tasks"), "{said}");
    std::fs::remove_file(host.path("tasks")).unwrap();
    host.start(&[]).stop();
}
