//! Tests of the discovery of tasks.

use super::*;

struct Folders(tempfile::TempDir);

impl Folders {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tasks", "playbooks"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn discover(&self) -> Discovery {
        let folder = |name| self.0.path().join(name);
        let (tasks, playbooks) = (folder("tasks"), folder("playbooks"));
        Discovery::read(&Config { tasks, playbooks, ..Config::default() }, None)
    }
}

fn check(files: &[(&str, &str)], tasks: &[(&str, TaskKind)], findings: &[&str]) {
    let discovery = Folders::with(files).discover();
    let found: Vec<_> = discovery.tasks.iter().map(|t| (t.name.as_str(), t.kind)).collect();
    assert_eq!(found, tasks);
    let texts: Vec<_> = discovery.findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(texts, findings);
}

#[test]
fn files_are_tasks_by_their_extension() {
    check(
        &[("tasks/a.wasm", ""), ("playbooks/b.c.yml", ""), ("playbooks/ansible.cfg", "")],
        &[("a", TaskKind::Component), ("b.c", TaskKind::Playbook)],
        &[],
    );
}

#[test]
fn a_component_takes_precedence_over_a_playbook_of_the_same_name() {
    check(
        &[("tasks/a.wasm", ""), ("playbooks/a.yml", "")],
        &[("a", TaskKind::Component)],
        &["playbook `a.yml` is ignored, because a component has the same name"],
    );
}

#[test]
fn a_playbook_with_another_extension_is_noted() {
    check(
        &[("playbooks/a.yaml", "")],
        &[],
        &["ignored, because playbooks must have the extension `.yml`"],
    );
}

#[test]
fn a_manifest_without_a_task_is_noted() {
    check(
        &[("tasks/a.toml", ""), ("tasks/Cargo.toml", "")],
        &[],
        &["ignored, because `a.wasm` does not exist"],
    );
}

#[test]
fn an_invalid_manifest_affects_only_its_own_task() {
    let discovery = Folders::with(&[
        ("tasks/a.wasm", ""),
        ("tasks/a.toml", "topic = 'x'"),
        ("tasks/b.wasm", ""),
    ])
    .discover();
    assert_eq!(discovery.tasks.len(), 2);
    let refused: Vec<_> = discovery.refused.into_iter().collect();
    let [(name, reason)] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(name.as_str(), "a");
    assert!(reason.contains("unknown field `topic`"), "{reason}");
}

#[test]
fn an_invalid_manifest_still_sets_topics_and_queue() {
    let text = "topics = ['x.y']\nqueue = 'slow'\nsecret = 1";
    let discovery = Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", text)]).discover();
    assert_eq!(discovery.refused.len(), 1);
    let task = &discovery.tasks[0];
    assert_eq!(task.patterns()[0].to_string(), "x.y");
    assert_eq!(task.manifest.queue.as_str(), "slow");
}

#[test]
fn a_missing_directory_is_unreadable_and_not_empty() {
    let folders = Folders::with(&[]);
    std::fs::remove_dir(folders.0.path().join("tasks")).unwrap();
    assert_eq!(folders.discover().unreadable.len(), 1);
}

#[test]
fn a_changed_secret_changes_the_discovery() {
    let folders = Folders::with(&[("tasks/a.wasm", ""), ("token", "one-secret")]);
    let token = folders.0.path().join("token");
    let manifest = format!("grants.secrets.t.file = '{}'", token.display());
    std::fs::write(folders.0.path().join("tasks/a.toml"), manifest).unwrap();
    let before = folders.discover();
    std::fs::write(token, "another-secret").unwrap();
    assert!(!before.is_same(&folders.discover()));
}

#[test]
fn default_limits_do_not_exceed_the_ceiling() {
    let folders = Folders::with(&[("tasks/a.wasm", ""), ("playbooks/b.yml", "")]);
    let folder = |name| folders.0.path().join(name);
    let ceiling = "timeout = '2s'\nmemory = '16MiB'";
    let config = Config {
        tasks: folder("tasks"),
        playbooks: folder("playbooks"),
        ceiling: toml::from_str(ceiling).unwrap(),
        ..Config::default()
    };
    let discovery = Discovery::read(&config, None);
    assert_eq!(discovery.refused.len(), 0);
    for task in &discovery.tasks {
        assert_eq!(task.timeout(), std::time::Duration::from_secs(2));
        assert_eq!(task.manifest.limits.memory, Some(bytesize::ByteSize::mib(16)));
    }
}

#[test]
fn a_grant_above_the_ceiling_is_refused() {
    let folders = Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", "grants.emit = ['x']")]);
    let folder = |name| folders.0.path().join(name);
    let ceiling = loopabull_model::Ceiling { emit: Some(Vec::new()), ..Default::default() };
    let config = Config {
        tasks: folder("tasks"),
        playbooks: folder("playbooks"),
        ceiling,
        ..Config::default()
    };
    let refused = Discovery::read(&config, None).refused;
    assert_eq!(refused[&"a".try_into().unwrap()], "the ceiling does not allow messages to `x`");
}

#[test]
fn a_setting_for_the_other_kind_of_task_is_refused() {
    let discovery = Folders::with(&[
        ("playbooks/a.yml", ""),
        ("playbooks/a.toml", "grants.state = '1KiB'"),
        ("tasks/b.wasm", ""),
        ("tasks/b.toml", "ansible.check_mode = true"),
    ])
    .discover();
    let refused = |name: &str| discovery.refused[&name.try_into().unwrap()].as_str();
    assert_eq!(refused("a"), "`grants.state` is for components");
    assert_eq!(refused("b"), "`[ansible]` is for playbooks");
}

#[test]
fn a_discovery_is_the_same_until_a_file_changes() {
    let folders = Folders::with(&[("tasks/a.wasm", ""), ("tasks/a.toml", "")]);
    let before = folders.discover();
    assert!(before.is_same(&folders.discover()));
    std::fs::write(folders.0.path().join("tasks/a.toml"), "queue = 'slow'").unwrap();
    let after = folders.discover();
    assert!(!before.is_same(&after));
    let name = "a".try_into().unwrap();
    assert_ne!(before.stamp(&name), after.stamp(&name));
}

#[test]
fn a_link_out_of_the_directory_is_not_a_task() {
    let folders = Folders::with(&[("outside.yml", "")]);
    let playbooks = folders.0.path().join("playbooks");
    std::os::unix::fs::symlink("../outside.yml", playbooks.join("a.yml")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", playbooks.join("b.yml")).unwrap();
    let discovery = folders.discover();
    assert_eq!(discovery.tasks, []);
    assert_eq!(discovery.findings.len(), 2);
}

#[test]
fn a_file_without_a_play_is_no_playbook() {
    let note =
        "ignored, because it has no play: no line begins with `hosts:` or `import_playbook:`";
    check(
        &[
            ("playbooks/requirements.yml", "- src: geerlingguy.nginx\n"),
            ("playbooks/steps.yml", "- name: hosts are fine\n  debug: { msg: 'hosts' }\n"),
            ("playbooks/a.yml", "---\n- hosts: all\n"),
            ("playbooks/b.yml", "- {name: x, hosts: all}\n"),
            ("playbooks/c.yml", "- ansible.builtin.import_playbook: a.yml\n"),
            ("playbooks/d.yml", "[{\"hosts\": \"all\"}]"),
            ("playbooks/e.yml", "\u{feff}- hosts: all\r- hosts: all\r"),
            ("playbooks/f.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n"),
            // Its name is a topic, so it is a broken playbook.
            ("playbooks/g.h.yml", "- ho"),
            // Somebody wrote a manifest, so the file is meant as a playbook.
            ("playbooks/meant.yml", "- debug: {}\n"),
            ("playbooks/meant.toml", ""),
        ],
        &["a", "b", "c", "d", "e", "f", "g.h", "meant"].map(|name| (name, TaskKind::Playbook)),
        &[note, note],
    );
}

/// A file that is cut off while it is copied is a broken playbook: its messages must wait.
#[test]
fn a_playbook_that_loses_its_play_is_still_a_task() {
    let folders = Folders::with(&[("playbooks/a.yml", "- hosts: all\n")]);
    let before = folders.discover();
    std::fs::write(folders.0.path().join("playbooks/a.yml"), "- ho").unwrap();
    let folder = |name| folders.0.path().join(name);
    let (tasks, playbooks) = (folder("tasks"), folder("playbooks"));
    let config = Config { tasks, playbooks, ..Config::default() };
    assert_eq!(Discovery::read(&config, Some(&before)).tasks.len(), 1);
    assert_eq!(Discovery::read(&config, None).tasks.len(), 0);
}

#[test]
fn links_lead_to_files_in_their_directory() {
    let folders = Folders::with(&[("playbooks/real", "- hosts: all\n"), ("outside", "")]);
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folders.0.path().join(name)).unwrap();
    };
    link("real", "playbooks/good.yml");
    link("../outside", "playbooks/out.yml");
    link("nowhere", "playbooks/dangling.yml");
    let discovery = folders.discover();
    let names: Vec<_> = discovery.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["good"]);
    let mut texts: Vec<_> = discovery.findings.iter().map(|finding| &finding.text).collect();
    texts.sort();
    assert!(
        texts[0].starts_with("cannot follow the link to `../outside`, which must"),
        "{texts:?}"
    );
    assert!(texts[1].starts_with("cannot follow the link to `nowhere`, which must"), "{texts:?}");
    assert!(discovery.findings.iter().all(|finding| finding.severity == Severity::Problem));
}

#[test]
fn links_may_lead_to_linked_directories() {
    let folders = Folders::with(&[]);
    let at = |name: &str| folders.0.path().join(name);
    for dir in ["release", "other"] {
        std::fs::create_dir(at(dir)).unwrap();
    }
    std::fs::write(at("release/a.yml"), "- hosts: all\n").unwrap();
    std::fs::write(at("release/a.toml"), "topics = ['x.y']").unwrap();
    std::fs::write(at("release/b.wasm"), "component").unwrap();
    std::fs::write(at("other/c.yml"), "- hosts: all\n").unwrap();
    // The directory of the configuration may itself be a link.
    std::os::unix::fs::symlink("release", at("current")).unwrap();
    let links = [
        ("../release/a.yml", "playbooks/a.yml"),
        ("../current/a.toml", "playbooks/a.toml"),
        ("../release/b.wasm", "tasks/b.wasm"),
        ("../other/c.yml", "playbooks/c.yml"),
    ];
    for (to, name) in links {
        std::os::unix::fs::symlink(to, at(name)).unwrap();
    }
    let (tasks, playbooks, linked_dirs) = (at("tasks"), at("playbooks"), vec![at("current")]);
    let config = Config { tasks, playbooks, linked_dirs, ..Config::default() };
    let discovery = Discovery::read(&config, None);
    let names: Vec<_> = discovery.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(discovery.tasks[0].patterns()[0].to_string(), "x.y");
    assert_eq!(discovery.component(&"b".try_into().unwrap()).unwrap(), b"component");
    let [finding] = &discovery.findings[..] else { panic!("{:?}", discovery.findings) };
    assert!(finding.text.contains("or in one of `linked_dirs`"), "{finding:?}");
    // A change behind the link is noticed.
    std::fs::write(at("release/a.yml"), "- hosts: others\n").unwrap();
    assert!(!discovery.is_same(&Discovery::read(&config, None)));
}

#[test]
fn playbooks_in_a_subdirectory_are_noted() {
    let folders = Folders::with(&[]);
    for name in ["site", "roles", "notes"] {
        std::fs::create_dir(folders.0.path().join("playbooks").join(name)).unwrap();
    }
    for (name, text) in [
        ("site/a.yml", "- hosts: all\n"),
        ("roles/a.yml", "- hosts: all\n"),
        ("notes/a.yml", "- debug: {}\n"),
    ] {
        std::fs::write(folders.0.path().join("playbooks").join(name), text).unwrap();
    }
    let discovery = folders.discover();
    assert!(discovery.tasks.is_empty());
    let [finding] = &discovery.findings[..] else { panic!("{:?}", discovery.findings) };
    assert_eq!(finding.file, folders.0.path().join("playbooks/site"));
    assert!(finding.text.starts_with("its playbooks are ignored"), "{}", finding.text);
}

#[test]
fn a_name_that_is_not_utf8_is_a_problem() {
    use std::os::unix::ffi::OsStrExt;
    let folders = Folders::with(&[]);
    let name = std::ffi::OsStr::from_bytes(b"\xff.yml");
    std::fs::write(folders.0.path().join("playbooks").join(name), "").unwrap();
    let discovery = folders.discover();
    assert_eq!(discovery.findings[0].text, "its name is not UTF-8");
}
