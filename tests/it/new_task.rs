//! A newcomer's path: from `tasks new` to a run in the journal of a daemon that was running all the
//! time.

use std::process::Command;

use crate::bed::{Bed, message, repository, text, wait_for};

fn cargo(bed: &Bed, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", bed.path("cargo"))
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn a_new_task_passes_its_test_is_built_and_runs_without_a_restart() {
    let bed = Bed::new();
    let sdk = repository().join("guest-sdk");
    let daemon = bed.start(&[]);
    let topic = "org.example.*.words";
    let arguments = ["tasks", "new", "count-words", "--topic", topic, "--sdk"];
    let new = bed.command(&arguments).arg(&sdk).output().unwrap();
    assert!(new.status.success(), "{}", text(&new.stderr));
    let manifest = bed.path("tasks/count-words/Cargo.toml");
    let said = cargo(&bed, &["test", "--manifest-path", manifest.to_str().unwrap()]);
    assert!(said.contains("2 passed"), "{said}");

    let tasks = bed.path("tasks");
    let build = Command::new(env!("CARGO"))
        .args(["xtask", "tasks", "--folder", tasks.to_str().unwrap()])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", text(&build.stderr));
    let body = r#"{"name":"Ada"}"#;
    bed.write("message.json", message("m-1", "org.example.prod.words", body));
    let tried = bed.run(&["test", "count-words", "message.json", "--record"]);
    let said = text(&tried.stdout) + &text(&tried.stderr);
    assert!(said.contains("info: Hello, Ada! topic=org.example.prod.words\n"), "{said}");
    assert!(said.contains("note: greeted = Ada\n"), "{said}");
    assert!(said.contains("recorded as `tasks/count-words/tests/cases/m-1.json`"), "{said}");

    // The daemon has heard of it.
    wait_for("its run", || {
        bed.inject(&[message("m-2", "org.example.prod.words", body)]);
        bed.runs().into_iter().find(|run| run.outcome.is_success())
    });
    daemon.stop();
    // A run of the journal is a case too, and both hold.
    let id = bed.runs()[0].id.to_string();
    let again = bed.run(&["test", "--run", &id, "--record"]);
    assert!(text(&again.stdout).contains("recorded as"), "{}", text(&again.stderr));
    let cases = std::fs::read_dir(bed.path("tasks/count-words/tests/cases")).unwrap().count();
    assert_eq!(cases, 3);
    cargo(&bed, &["test", "--manifest-path", manifest.to_str().unwrap()]);

    let second = bed.command(&arguments).arg(&sdk).output().unwrap();
    assert!(text(&second.stderr).contains("already exists"), "{}", text(&second.stderr));
}
