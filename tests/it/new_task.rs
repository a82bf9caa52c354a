//! A new task, from `tasks new` to a run in the journal, without a restart of the daemon.

use std::process::Command;

use crate::test_host::{TestHost, message, repository, text, wait_for};

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(repository())
        // Uses the folder in which the tests of the example tasks have already built the dependencies.
        .env("CARGO_TARGET_DIR", repository().join("tasks/target"))
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_new_task_passes_its_test_is_built_and_runs_without_a_restart() {
    let host = TestHost::new();
    let sdk = repository().join("guest-sdk");
    let daemon = host.start(&[]);
    let topic = "org.example.*.words";
    let arguments = ["tasks", "new", "count-words", "--topic", topic, "--sdk"];
    let new = host.command(&arguments).arg(&sdk).output().unwrap();
    assert!(new.status.success(), "{}", text(&new.stderr));
    let manifest = host.path("tasks/count-words/Cargo.toml");
    let said = cargo(&["test", "--manifest-path", manifest.to_str().unwrap()]);
    assert!(said.contains("2 passed"), "{said}");

    let tasks = host.path("tasks");
    let build = Command::new(env!("CARGO"))
        .args(["xtask", "tasks", "--folder", tasks.to_str().unwrap()])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", text(&build.stderr));
    let body = r#"{"name":"Ada"}"#;
    host.write("message.json", message("m-1", "org.example.prod.words", body));
    let tried = host.run(&["test", "count-words", "message.json", "--record"]);
    let said = text(&tried.stdout) + &text(&tried.stderr);
    assert!(said.contains("info: Hello, Ada! topic=org.example.prod.words\n"), "{said}");
    assert!(said.contains("note: greeted = Ada\n"), "{said}");
    assert!(said.contains("recorded as `tasks/count-words/tests/cases/m-1.json`"), "{said}");

    // The daemon loads the task without a restart.
    wait_for("a successful run of the new task", || {
        host.inject(&[message("m-2", "org.example.prod.words", body)]);
        host.runs().into_iter().find(|run| run.outcome.is_success())
    });
    daemon.stop();
    // A run in the journal can be recorded as a test case too. All test cases pass.
    let id = host.runs()[0].id.to_string();
    let again = host.run(&["test", "--run", &id, "--record"]);
    assert!(text(&again.stdout).contains("recorded as"), "{}", text(&again.stderr));
    let cases = std::fs::read_dir(host.path("tasks/count-words/tests/cases")).unwrap().count();
    assert_eq!(cases, 3);
    cargo(&["test", "--manifest-path", manifest.to_str().unwrap()]);

    let second = host.command(&arguments).arg(&sdk).output().unwrap();
    assert!(text(&second.stderr).contains("already exists"), "{}", text(&second.stderr));
}
