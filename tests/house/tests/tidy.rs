//! Tests of the house rules in STYLE.md that a machine can check.
#![expect(clippy::disallowed_methods, reason = "one test asks cargo for the dependencies")]

use std::fs;
use std::path::Path;

use loopabull_house::{root, rust_files};

/// The maximum number of lines in a file. Above 350 lines, STYLE.md asks the author to look for a split.
const MAX_LINES: usize = 500;

/// Fails with the name of each file that does not pass.
fn check(rule: &str, passes: impl Fn(&Path, &str) -> bool) {
    let files = rust_files();
    let bad: Vec<_> =
        files.iter().filter(|(path, text)| !passes(path, text)).map(|(path, _)| path).collect();
    assert!(bad.is_empty(), "{rule}: {bad:#?}");
}

#[test]
fn no_file_is_too_long() {
    check("the file is too long", |_, text| text.lines().count() <= MAX_LINES);
}

#[test]
fn every_file_says_what_it_is() {
    check("the file does not begin with a module doc", |_, text| text.starts_with("//!"));
}

#[test]
fn modules_are_files_of_their_name() {
    check("use name.rs, not name/mod.rs", |path, _| path.file_name().unwrap() != "mod.rs");
}

#[test]
fn open_ends_are_not_in_the_tree() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
    ];
    check("the file contains an open end", |_, text| !words.iter().any(|word| text.contains(word)));
}

#[test]
fn a_message_is_made_from_the_wire_in_two_places() {
    let files = rust_files();
    for (call, place) in [
        (concat!("Message::", "from_verified("), "host/crates/fedmsg/src/verifier.rs"),
        (concat!("Message::", "from_trusted("), "host/crates/fedmsg/src/trusted/message.rs"),
    ] {
        let callers = files.iter().filter(|(_, text)| text.contains(call)).map(|(path, _)| path);
        let callers: Vec<_> = callers.collect();
        assert_eq!(callers.len(), 1, "{call} {callers:?}");
        assert!(callers[0].ends_with(place), "{call} {callers:?}");
    }
}

#[test]
fn only_three_crates_use_amqp_and_only_wasm_uses_wasmtime() {
    let only = |word: &'static str, homes: &'static [&'static str]| {
        check(word, move |path, text| {
            let path = path.to_str().unwrap();
            let is_home = homes.iter().any(|home| path.contains(home));
            !text.contains(word) || is_home || path.contains("/tests/")
        });
    };
    only("lapin::", &["crates/amqp/", "crates/queue/src/rabbitmq", "crates/fedora-messaging/"]);
    only("wasmtime::", &["crates/wasm/"]);
    only("zmq::", &["host/src/ingest/"]);
}

#[test]
fn unsafe_is_written_in_two_files() {
    check("unsafe is only allowed in launcher/src/sys.rs and wasm/src/native.rs", |path, text| {
        let homes = ["launcher/src/sys.rs", "wasm/src/native.rs"];
        let is_home = homes.iter().any(|home| path.ends_with(home));
        let word = "unsafe";
        let kinds = ["{", "fn", "impl", "extern", "trait"];
        is_home || !kinds.iter().any(|kind| text.contains(&format!("{word} {kind}")))
    });
}

#[test]
fn model_does_no_io_and_knows_no_clock() {
    let words = ["std::fs", "std::net", "std::env", "SystemTime", "Instant", "tokio"];
    check("the crate model does I/O or reads a clock", |path, text| {
        !path.to_str().unwrap().contains("crates/model/") || !words.iter().any(|w| text.contains(w))
    });
}

#[test]
fn every_test_file_is_named_in_main() {
    let folder = root().join("tests/it");
    let main = fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            name == "main" || main.contains(&format!("mod {name};")),
            "main.rs does not name the module {name}"
        );
    }
}

#[test]
fn every_task_has_a_test_and_a_manifest() {
    let tasks = root().join("tasks");
    let other_languages = include_str!("../../it/other_languages.rs");
    let mut count = 0;
    for entry in fs::read_dir(&tasks).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let has_test = if folder.join("Cargo.toml").exists() {
            let names = [name.replace('-', "_"), name.to_owned()];
            names.iter().any(|name| folder.join(format!("tests/{name}.rs")).exists())
        } else if folder.join("app.py").exists() || folder.join("package.json").exists() {
            other_languages.contains(&format!("\"{name}\""))
        } else {
            continue;
        };
        count += 1;
        assert!(has_test, "task {name} has no test");
        assert!(tasks.join(format!("{name}.toml")).exists(), "task {name} has no manifest");
    }
    assert!(count >= 4);
}

#[test]
fn error_messages_are_lower_case_clauses() {
    for (path, text) in rust_files() {
        for line in text.lines().filter(|line| line.trim_start().starts_with("#[error(\"")) {
            let said = line.split('"').nth(1).unwrap();
            let first = said.chars().next().unwrap();
            // A product name keeps its capital at the start of a message.
            let proper = said.starts_with("RabbitMQ");
            assert!(!first.is_uppercase() || proper, "{}: {said}", path.display());
            assert!(!said.ends_with('.'), "{}: {said}", path.display());
        }
    }
}

#[test]
fn what_needs_no_wasmtime_builds_without_it() {
    let packages = [
        "loopabull-amqp",
        "loopabull-backoff",
        "loopabull-queue",
        "loopabull-fedora-messaging",
        "loopabull-fedmsg",
        "loopabull-launcher",
        "loopabull-egress",
        "loopabull-playbook",
    ];
    for package in packages {
        let tree = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges", "normal,build,dev", "--prefix", "none"])
            .args(["--package", package])
            .current_dir(root())
            .output()
            .unwrap();
        let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
        assert!(tree.starts_with(package), "cargo prints no dependency tree of {package}");
        assert!(!tree.contains("wasmtime"), "{package} depends on wasmtime");
    }
}

/// Each file or folder of this repository that a document names in backticks must exist.
#[test]
fn every_path_in_the_documents_exists() {
    let mut documents = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    documents.push(root().join("STYLE.md"));
    let more = fs::read_dir(root().join("host/docs")).unwrap();
    documents.extend(more.map(|entry| entry.unwrap().path()));
    // `tasks/` and `playbooks/` are left out, because a document may mean the folders of a user.
    let folders = ["host/", "guest-sdk/", "tests/", "wit/"];
    let mut paths = 0;
    for document in &documents {
        for word in fs::read_to_string(document).unwrap().split('`').skip(1).step_by(2) {
            let path = word.split_once(": ").map_or(word, |(path, _)| path);
            // A path with a capital letter is a placeholder, and a component exists only after its build.
            let is_pattern = path.contains([' ', '*', '<', '{']) || path.ends_with(".wasm");
            let is_pattern = is_pattern || path.contains(|c: char| c.is_ascii_uppercase());
            if is_pattern || !folders.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            assert!(root().join(path).exists(), "{} names `{path}`", document.display());
            paths += 1;
        }
    }
    assert!(paths >= 40, "the documents name only {paths} paths");
}

/// The walk in ARCHITECTURE.md names functions as `file.rs: name`. Each of these functions must exist.
#[test]
fn the_walk_of_one_message_matches_the_code() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let walk = text.split("## The walk of one message").nth(1).unwrap();
    let walk = walk.split("\n## ").next().unwrap();
    let mut steps = 0;
    for step in walk.split('`').skip(1).step_by(2) {
        let Some((file, function)) = step.split_once(": ") else { continue };
        let path = root().join(file);
        let code = fs::read_to_string(&path)
            .unwrap_or_else(|_| panic!("the walk names `{file}`, which does not exist"));
        let found = [format!("fn {function}("), format!("fn {function}<")];
        assert!(found.iter().any(|f| code.contains(f)), "`{file}` has no function `{function}`");
        steps += 1;
    }
    assert!(steps >= 12, "the walk names only {steps} functions");
}
