//! Reloads: tasks are added, changed and removed while the daemon runs.

use crate::test_host::{Daemon, TestHost, message, wait_for};

/// Installs a guest that rejects every message with its version number as the reason.
fn version(host: &TestHost, number: u32) {
    let wat = include_str!("../../host/crates/wasm/tests/guests/guest.wat");
    let said = format!("version {number:04}");
    let wat = wat.replace("no good", &said).replace("\\07\\00\\00\\00", "\\0c\\00\\00\\00");
    replace(host, "a.wasm", &wat::parse_str(wat.replace("BODY", "i32.const 96")).unwrap());
}

/// Replaces a file of `tasks` atomically, as `mv` does.
fn replace(host: &TestHost, name: &str, bytes: &[u8]) {
    host.write(&format!("{name}.part"), bytes);
    let place = host.path(&format!("tasks/{name}"));
    std::fs::rename(host.path(&format!("{name}.part")), place).unwrap();
}

fn problems(daemon: &Daemon) -> String {
    daemon.status()["problems"].to_string()
}

#[test]
fn a_new_version_comes_into_force_and_a_broken_one_does_not() {
    let host = TestHost::new();
    version(&host, 1);
    let daemon = host.start(&[]);
    let run = |id: &str| {
        host.inject(&[message(id, "a", "{}")]);
        wait_for("the run of the message", || {
            let run = host.runs().into_iter().find(|run| run.message_id.as_str() == id)?;
            Some(run.outcome.to_string())
        })
    };
    assert_eq!(run("m-1"), "reject: version 0001");

    version(&host, 2);
    wait_for("the new version to be loaded", || {
        host.log().contains("reloaded the tasks").then_some(())
    });
    assert_eq!(run("m-2"), "reject: version 0002");

    replace(&host, "a.wasm", b"no component");
    wait_for("the problem to be reported", || {
        problems(&daemon).contains("the new version is refused").then_some(())
    });
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(run("m-3"), "reject: version 0002");

    version(&host, 3);
    wait_for("the problem to be resolved", || (problems(&daemon) == "[]").then_some(()));
    assert_eq!(run("m-4"), "reject: version 0003");
    // A version with an invalid manifest is refused too.
    replace(&host, "a.toml", b"topic = 'x'");
    wait_for("the problem to be reported", || {
        problems(&daemon).contains("unknown field").then_some(())
    });
    assert_eq!(run("m-5"), "reject: version 0003");
    daemon.stop();
}

#[test]
fn a_task_that_is_refused_has_its_messages_wait_until_it_is_mended() {
    let host = TestHost::new();
    let needs_grant = crate::emit::sender("b", 1, "i32.const 0");
    host.write("tasks/a.wasm", needs_grant);
    host.add_guest("other", "a", "", "i32.const 0");
    let daemon = host.start(&[]);
    assert_eq!(daemon.get("/readyz").0, 503);
    let said = problems(&daemon);
    assert!(
        said.contains("needs the grant `emit`; add to the task's manifest: `emit = "),
        "{said}"
    );
    host.inject(&[message("m-1", "a", "{}"), message("m-2", "a", "{}")]);
    wait_for("the messages to wait", || (daemon.depth("held") == Some(2)).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(host.tally(), [("other success".to_owned(), 2)].into());

    replace(&host, "a.toml", b"grants.emit = ['b']");
    wait_for("both runs", || (host.tally().get("a success") == Some(&2)).then_some(()));
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.stop();
}

#[test]
fn messages_of_a_refused_task_are_set_aside_where_the_operator_says_so() {
    let host = TestHost::new();
    host.write("tasks/a.wasm", crate::emit::sender("b", 1, "i32.const 0"));
    host.write("loopabull.toml", "refused_tasks = 'dead-letter'");
    let daemon = host.start(&["--config", "loopabull.toml"]);
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the dead letter", || (daemon.depth("dead") == Some(1)).then_some(()));
    daemon.stop();
    let listed = crate::test_host::text(&host.run(&["dead-letters"]).stdout);
    assert!(listed.contains("its task is refused: the component imports"), "{listed}");
}

#[test]
fn tasks_come_and_go_while_the_daemon_runs() {
    let host = TestHost::new();
    host.add_guest("other", "z", "", "i32.const 0");
    let daemon = host.start(&[]);
    host.add_guest("late", "late", "", "i32.const 0");
    host.write(
        "playbooks/org.example.late.yml",
        "- hosts: localhost\n  gather_facts: false\n  tasks: []\n",
    );
    wait_for("both tasks to be loaded", || {
        let log = host.log();
        (log.contains("late") && log.contains("org.example.late")).then_some(())
    });
    let more = [message("m-1", "late", "{}"), message("m-2", "org.example.late", "{}")];
    host.inject(&more);
    wait_for("both runs", || (host.runs().len() == 2).then_some(()));
    daemon.wait_until_idle();
    let expected = [("late success".to_owned(), 1), ("org.example.late success".to_owned(), 1)];
    assert_eq!(host.tally(), expected.into());
    // This daemon has no workers for the queue `slow`, so it refuses the new manifest.
    replace(&host, "late.toml", b"queue = 'slow'");
    wait_for("the problem to be reported", || {
        problems(&daemon).contains("restart the daemon").then_some(())
    });
    daemon.stop();
}

/// A playbook that is broken before the start is treated like one that is broken while the daemon runs.
#[test]
fn playbooks_that_are_broken_at_the_start_are_refused() {
    let host = TestHost::new();
    host.add_playbook("syntax", "topics = ['a']", "    - no_such_module_at_all: {}\n");
    host.add_playbook("role", "topics = ['a']", "    - import_role: { name: absent }\n");
    host.add_playbook("good", "topics = ['a']", "    - debug: { msg: one }\n");
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the run of the good playbook", || {
        (host.tally().get("good success") == Some(&1)).then_some(())
    });
    wait_for("the messages to wait", || (daemon.depth("held") == Some(2)).then_some(()));
    wait_for("the checks to be done", || {
        (!problems(&daemon).contains("not checked")).then_some(())
    });
    assert_eq!(daemon.get("/readyz").0, 503);
    let said = problems(&daemon);
    assert!(
        said.contains("task `syntax`: refused") && said.contains("task `role`: refused"),
        "{said}"
    );
    assert!(!said.contains("`good`"), "{said}");
    let listed = crate::test_host::text(&host.run(&["tasks"]).stdout);
    assert_eq!(listed.matches("refused: ").count(), 2, "{listed}");
    daemon.stop();

    host.add_playbook("syntax", "topics = ['a']", "    - debug: { msg: two }\n");
    std::fs::create_dir_all(host.path("playbooks/roles/absent/tasks")).unwrap();
    host.write("playbooks/roles/absent/tasks/main.yml", "- debug: { msg: three }\n");
    let daemon = host.start(&[]);
    wait_for("the runs", || (host.runs().len() == 3).then_some(()));
    assert!(host.runs().iter().all(|run| run.outcome.is_success() && run.attempt == 1));
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}

/// A deployment switches the link `playbooks` to the next release, as `ln -sfn` and `mv -T` do. Warm runs too use
/// the new release.
#[test]
fn a_directory_that_is_a_link_can_be_switched() {
    let host = TestHost::new();
    std::fs::remove_dir(host.path("playbooks")).unwrap();
    for release in ["one", "two"] {
        std::fs::create_dir_all(host.path(&format!("{release}/roles/r/tasks"))).unwrap();
        let play = "- hosts: localhost\n  gather_facts: false\n  roles: [r]\n";
        host.write(&format!("{release}/a.yml"), play);
        let role = format!("- debug: {{ msg: 'this is release {release}' }}\n");
        host.write(&format!("{release}/roles/r/tasks/main.yml"), role);
    }
    let switch = |release: &str| {
        std::os::unix::fs::symlink(release, host.path("next")).unwrap();
        std::fs::rename(host.path("next"), host.path("playbooks")).unwrap();
    };
    switch("one");
    let daemon = host.start(&["--workers", "1"]);
    let run = |id: &str| {
        host.inject(&[message(id, "a", "{}")]);
        wait_for("the run of the message", || {
            let run = host.runs().into_iter().find(|run| run.message_id.as_str() == id)?;
            Some(run.output.text)
        })
    };
    for id in ["m-1", "m-2", "m-3"] {
        assert!(run(id).contains("this is release one"));
    }
    switch("two");
    wait_for("the reload", || host.log().contains("changed: a").then_some(()));
    for id in ["m-4", "m-5", "m-6"] {
        assert!(run(id).contains("this is release two"));
    }
    // A directory that replaces the link is followed as well.
    std::fs::rename(host.path("playbooks"), host.path("old")).unwrap();
    std::fs::rename(host.path("one"), host.path("playbooks")).unwrap();
    wait_for("the second reload", || (host.log().matches("changed: a").count() == 2).then_some(()));
    assert!(run("m-7").contains("this is release one"));
    daemon.stop();
}

/// `/readyz`, `tasks`, `check` and the log name the same files that are not used.
#[test]
fn files_that_are_not_used_are_named_everywhere() {
    let host = TestHost::new();
    host.add_playbook("good", "", "    - debug: { msg: one }\n");
    host.write("playbooks/requirements.yml", "- src: a.role\n");
    let daemon = host.start(&[]);
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    std::os::unix::fs::symlink("/etc/hostname", host.path("playbooks/out.yml")).unwrap();
    host.write("playbooks/-x.yml", "- hosts: all\n");
    wait_for("the report", || (daemon.get("/readyz").0 == 503).then_some(()));
    let output = |command: &str| crate::test_host::text(&host.run(&[command]).stdout);
    for (place, said) in [
        ("readyz", daemon.get("/readyz").1),
        ("log", host.log()),
        ("tasks", output("tasks")),
        ("check", output("check")),
    ] {
        assert!(
            said.contains("out.yml`: cannot follow the link to `/etc/hostname`"),
            "{place}: {said}"
        );
        assert!(said.contains("-x.yml`: "), "{place}: {said}");
        let has_note = said.contains("requirements.yml`: ignored, because it has no play");
        assert_eq!(has_note, place != "readyz", "{place}: {said}");
    }
    daemon.stop();
}

fn check_uninstalled(flags: &[&str]) {
    let host = TestHost::new();
    host.add_guest("a", "a", "", "i32.const 0").add_guest("other", "z", "", "i32.const 0");
    let messages =
        [message("m-1", "a", "{}"), message("m-2", "a", "{}"), message("m-3", "z", "{}")];
    host.run_with_input(&[&["inject", "-"], flags].concat(), &messages.join("\n"));
    std::fs::rename(host.path("tasks/a.wasm"), host.path("a.wasm")).unwrap();
    for _ in 0..2 {
        let daemon = host.start(flags);
        wait_for("the messages to wait", || (daemon.depth("held") == Some(2)).then_some(()));
        let said = "tasks that are not installed: messages wait for `a`";
        wait_for("the report", || daemon.get("/readyz").1.contains(said).then_some(()));
        assert_eq!(daemon.get("/readyz").0, 503);
        daemon.wait_until_idle();
        assert_eq!(host.tally(), [("other success".to_owned(), 1)].into());
        daemon.stop();
    }
    let daemon = host.start(flags);
    std::fs::rename(host.path("a.wasm"), host.path("tasks/a.wasm")).unwrap();
    wait_for("the runs", || (host.tally().get("a success") == Some(&2)).then_some(()));
    assert!(host.runs().iter().all(|run| run.attempt == 1));
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}

#[test]
fn messages_of_a_task_that_is_not_installed_wait_in_the_embedded_queue() {
    check_uninstalled(&[]);
}

#[test]
fn messages_of_a_task_that_is_not_installed_wait_in_rabbitmq() {
    let url = loopabull_testbed::Rabbit::shared().vhost().url();
    check_uninstalled(&["--amqp-url", &url]);
}

/// The files of a role do not belong to the playbook's own files. So only a run finds out that they are gone.
#[test]
fn a_role_that_vanishes_costs_no_attempt() {
    let host = TestHost::new();
    std::fs::create_dir_all(host.path("playbooks/roles/r/tasks")).unwrap();
    host.write("playbooks/roles/r/tasks/main.yml", "- debug: { msg: one }\n");
    host.add_playbook("b", "topics = ['a']", "    - import_role: { name: r }\n");
    let daemon = host.start(&[]);
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the first run", || (host.tally().get("b success") == Some(&1)).then_some(()));
    std::fs::rename(host.path("playbooks/roles"), host.path("roles")).unwrap();
    host.inject(&[message("m-2", "a", "{}"), message("m-3", "a", "{}")]);
    wait_for("the messages to wait", || (daemon.depth("held") == Some(2)).then_some(()));
    assert!(problems(&daemon).contains("task `b`: refused"), "{}", problems(&daemon));
    assert_eq!(daemon.get("/readyz").0, 503);
    std::fs::rename(host.path("roles"), host.path("playbooks/roles")).unwrap();
    wait_for("the other runs", || (host.tally().get("b success") == Some(&3)).then_some(()));
    let attempts: Vec<_> = host.runs().iter().map(|run| run.attempt).collect();
    assert!(attempts.iter().all(|attempt| *attempt == 1), "{attempts:?}");
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.stop();
}

#[test]
fn messages_of_a_broken_playbook_wait_until_it_is_mended() {
    let host = TestHost::new();
    let playbook = |tasks: &str| {
        host.add_playbook("b", "topics = ['a']", tasks);
    };
    playbook("    - debug: { msg: one }\n");
    let daemon = host.start(&[]);
    playbook("    - no_such_module_at_all: {}\n");
    wait_for("the problem to be reported", || {
        problems(&daemon).contains("task `b`: refused").then_some(())
    });
    // A change of another task does not load the broken playbook.
    host.add_guest("other", "z", "", "i32.const 0");
    wait_for("the other task to be loaded", || host.log().contains("changed: other").then_some(()));
    assert!(problems(&daemon).contains("task `b`: refused"), "{}", problems(&daemon));
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the message to wait", || (daemon.depth("held") == Some(1)).then_some(()));
    playbook("    - debug: { msg: two }\n");
    wait_for("the run", || (host.tally().get("b success") == Some(&1)).then_some(()));
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.stop();
}

#[test]
fn a_directory_that_is_away_for_a_while_unloads_nothing() {
    let host = TestHost::new();
    host.add_guest("a", "a", "", "i32.const 0");
    let daemon = host.start(&[]);
    std::fs::rename(host.path("tasks"), host.path("away")).unwrap();
    wait_for("the problem to be reported", || {
        problems(&daemon).contains("cannot open the directory").then_some(())
    });
    std::fs::rename(host.path("away"), host.path("tasks")).unwrap();
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("the run of the message", || {
        (host.tally() == [("a success".to_owned(), 1)].into()).then_some(())
    });
    wait_for("the problem to be resolved", || (problems(&daemon) == "[]").then_some(()));
    daemon.stop();
}

#[test]
fn a_directory_that_was_never_there_is_no_problem() {
    let host = TestHost::new();
    std::fs::remove_dir(host.path("tasks")).unwrap();
    host.add_playbook("a", "", "    - debug: { msg: one }\n");
    let daemon = host.start(&[]);
    host.add_playbook("b", "", "    - debug: { msg: two }\n");
    wait_for("the playbook to be loaded", || host.log().contains("changed: b").then_some(()));
    wait_for("the checks", || (problems(&daemon) == "[]").then_some(()));
    // The directory may be created later.
    std::fs::create_dir(host.path("tasks")).unwrap();
    host.add_guest("c", "c", "", "i32.const 0");
    host.add_playbook("b", "topics = ['x']", "    - debug: { msg: two }\n");
    wait_for("the component to be loaded", || {
        let log = host.log();
        // The daemon notices the changes of `b` and `c` together, or one after the other.
        ["changed: b, c", "changed: c"].iter().any(|names| log.contains(names)).then_some(())
    });
    daemon.stop();
}

#[test]
fn held_messages_go_on_when_their_task_moves_to_another_queue_or_goes() {
    let host = TestHost::new();
    for name in ["moves", "goes"] {
        host.write(&format!("tasks/{name}.wasm"), crate::emit::sender("b", 1, "i32.const 0"));
        host.write(&format!("tasks/{name}.toml"), "topics = ['a']");
    }
    let daemon = host.start(&["--queue", "slow=1"]);
    host.inject(&[message("m-1", "a", "{}")]);
    wait_for("both messages to wait", || (daemon.depth("held") == Some(2)).then_some(()));
    replace(&host, "moves.toml", b"topics = ['a']\nqueue = 'slow'\ngrants.emit = ['b']");
    wait_for("the run in the other queue", || {
        (host.tally().get("moves success") == Some(&1)).then_some(())
    });
    for ending in ["wasm", "toml"] {
        std::fs::remove_file(host.path(&format!("tasks/goes.{ending}"))).unwrap();
    }
    wait_for("the report of the removed task", || {
        problems(&daemon).contains("not installed: messages wait for `goes`").then_some(())
    });
    assert_eq!(daemon.depth("held"), Some(1));
    daemon.stop();
    // The operator does not want the messages of removed tasks any more.
    host.write("loopabull.toml", "refused_tasks = 'dead-letter'");
    let daemon = host.start(&["--queue", "slow=1", "--config", "loopabull.toml"]);
    wait_for("the dead letter", || (daemon.depth("dead") == Some(1)).then_some(()));
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
}

/// The id of each message contains the version of the task that was loaded when the message was published.
/// The message must be run by this version or a later one, and never by a mixture of two versions.
#[test]
fn reloads_under_load_lose_nothing_and_mix_nothing() {
    check_reloads(60);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_two_hundred_reloads_under_load() {
    check_reloads(200);
}

fn check_reloads(rounds: u32) {
    let host = TestHost::new();
    version(&host, 0);
    let daemon = host.start(&["--workers", "5"]);
    let reloads = || daemon.metric("loopabull_reloads_total").unwrap();
    let (mut sent, mut loaded) = (0, 0);
    for round in 1..=rounds {
        let before = reloads();
        // These messages run while the new version is loaded.
        if round % 4 == 0 {
            let messages: Vec<_> =
                (0..25).map(|n| message(&format!("m-{loaded}-{round}-{n}"), "a", "{}")).collect();
            host.inject(&messages);
            sent += messages.len();
        }
        match round % 5 {
            0 => replace(&host, "a.wasm", b"broken"),
            1 => replace(&host, "a.toml", b"topics = ['a'"),
            2 => replace(&host, "a.toml", b"topics = ['a']"),
            _ => {
                version(&host, round);
                loaded = round;
            }
        }
        wait_for("the reload", || (reloads() > before).then_some(()));
    }
    version(&host, 9999);
    wait_for("the last version to be loaded", || (problems(&daemon) == "[]").then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let runs = host.runs();
    assert_eq!(runs.len(), sent);
    for run in runs {
        let said = run.outcome.to_string();
        let ran = said.strip_prefix("reject: version ").and_then(|n| n.parse::<u32>().ok());
        let sent = run.message_id.as_str().split('-').nth(1).and_then(|n| n.parse::<u32>().ok());
        let (Some(ran), Some(sent)) = (ran, sent) else { panic!("{said}") };
        assert!(ran >= sent && (ran == 0 || ran % 5 > 2), "{} by version {ran}", run.message_id);
    }
}

/// A release is switched by links in `playbooks`, which lead to a directory elsewhere.
#[test]
fn links_to_another_directory_are_followed_and_switched() {
    let host = TestHost::new();
    for release in ["one", "two"] {
        std::fs::create_dir_all(host.path(&format!("releases/{release}"))).unwrap();
        let play = format!(
            "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - debug: {{ msg: 'release {release}' }}\n"
        );
        host.write(&format!("releases/{release}/a.yml"), play);
    }
    let link = |release: &str| {
        let new = host.path("new");
        std::os::unix::fs::symlink(format!("../releases/{release}/a.yml"), &new).unwrap();
        std::fs::rename(new, host.path("playbooks/a.yml")).unwrap();
    };
    link("one");
    let releases = host.path("releases").canonicalize().unwrap();
    host.write("loopabull.toml", format!("linked_dirs = ['{}']\n", releases.display()));
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let last = |id: &str| {
        let inject = ["--config", "loopabull.toml", "inject", "-"];
        host.run_with_input(&inject, &message(id, "a", "{}"));
        daemon.wait_until_idle();
        let run = host.runs().into_iter().next().unwrap();
        assert!(run.outcome.is_success(), "{}\n{}", run.outcome, run.output.text);
        run.output.text
    };
    for id in ["m-1", "m-2"] {
        assert!(last(id).contains("release one"));
    }
    link("two");
    wait_for("the new release", || host.log().contains("reloaded the tasks").then_some(()));
    assert!(last("m-3").contains("release two"));
    daemon.stop();
}
