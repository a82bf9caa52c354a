//! Realistic plays: some use files, roles, plugins, inventories, vaults and more, and some fail. The tests
//! check the results for each host, and that cold and warm runs give the same results.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use loopabull_model::{LayerState, Run};

use crate::test_host::{Daemon, TestHost, message, processes_with, text, wait_for};

/// The first lines of most plays in this file.
const HERE: &str = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n";

/// Writes a file into the folder of the playbooks. `SHARED` in its text is replaced by the path of the folder
/// that playbooks may write.
fn put(host: &TestHost, name: &str, text: &str) {
    let file = host.path("playbooks").join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text.replace("SHARED", host.path("shared").to_str().unwrap())).unwrap();
}

/// Adds a playbook with at most two attempts.
fn add(host: &TestHost, name: &str, manifest: &str, play: &str) {
    let retry = "[retry]\nmax_attempts = 2\npauses = ['100ms']";
    host.add_playbook(name, &format!("{manifest}\n{retry}"), "");
    put(host, &format!("{name}.yml"), play);
}

/// Adds a playbook as [`add`] does. Its first play runs these tasks on localhost.
fn add_here(host: &TestHost, name: &str, manifest: &str, tasks: &str) {
    add(host, name, manifest, &format!("{HERE}{tasks}"));
}

/// Runs each of these playbooks on the same message, once with a cold start and once with a warm start. Fails
/// if the two runs of a playbook differ in output or results. Returns the warm runs by task.
fn run_all(host: &TestHost, tasks: &[&str]) -> BTreeMap<String, Run> {
    host.write("cold.toml", "[playbook]\nstart = 'cold'\n");
    let daemon = host.start(&["--config", "cold.toml", "--workers", "2"]);
    let cold = run_round(host, &daemon, tasks);
    daemon.stop();
    let daemon = host.start(&["--workers", "2"]);
    let mut warm = run_round(host, &daemon, tasks);
    // The first run with a given set of grants is still cold, so the round is repeated until all are warm.
    for _ in 0..4 {
        if warm.values().all(|run| start(run).is_none()) {
            break;
        }
        warm = run_round(host, &daemon, tasks);
    }
    daemon.stop();
    for (task, run) in &warm {
        assert_eq!(start(run), None, "{task} has no warm run");
        let other = &cold[task];
        assert_eq!(start(other), Some("asked"), "{task}");
        assert_eq!(told(run), told(other), "{task}: {}", run.output.text);
        assert_eq!(run.outcome.name(), other.outcome.name(), "{task}");
        assert_eq!(without_chance(&run.output.text), without_chance(&other.output.text), "{task}");
    }
    warm
}

fn run_round(host: &TestHost, daemon: &Daemon, tasks: &[&str]) -> BTreeMap<String, Run> {
    for entry in fs::read_dir(host.path("shared")).unwrap() {
        let path = entry.unwrap().path();
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.unwrap();
    }
    let before = host.runs().len();
    let id = |task: &&str| format!("m-{before}-{task}");
    let messages = tasks.iter().map(|task| message(&id(task), task, r#"{"who":"Ada"}"#));
    host.inject(&messages.collect::<Vec<_>>());
    daemon.wait_until_idle();
    let runs = host.runs().into_iter().rev();
    runs.map(|run| (run.task.as_str().to_owned(), run)).collect()
}

/// Returns the reason for the cold start of a run, or `None` if the start was warm.
fn start(run: &Run) -> Option<&str> {
    run.playbook.as_ref().unwrap().cold.as_deref()
}

/// Removes all differences between the outputs of two runs that are due to chance. Words with a digit are
/// replaced, because they are times, process ids or random names. Lines are sorted, because hosts run in
/// parallel.
fn without_chance(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || "_-".contains(c);
    // The number of polls of an asynchronous task depends on the speed of the machine.
    let is_told_by_chance = |line: &&str| line.starts_with("ASYNC POLL");
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !is_told_by_chance(line))
        .map(|line| {
            let words = line.split_inclusive(|c| !is_word(c));
            let words = words.map(|word| {
                let end = &word[word.trim_end_matches(|c| !is_word(c)).len()..];
                match word.contains(|c: char| c.is_ascii_digit()) {
                    true => format!("#{end}"),
                    false => word.to_owned(),
                }
            });
            words.collect()
        })
        .collect();
    lines.sort_unstable();
    lines
}

/// Returns the outcome and the results of a playbook run, without counts of zero. Example:
/// `success, here: ok=2 changed=1`.
pub(crate) fn told(run: &Run) -> String {
    let results = run.playbook.as_ref().and_then(|playbook| playbook.results.as_ref());
    let mut told = run.outcome.name().to_owned();
    for (host, counts) in results.into_iter().flat_map(|results| &results.hosts) {
        let counts = [
            ("ok", counts.ok),
            ("changed", counts.changed),
            ("failed", counts.failed),
            ("unreachable", counts.unreachable),
            ("skipped", counts.skipped),
            ("rescued", counts.rescued),
            ("ignored", counts.ignored),
        ];
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let counts: String = counts.map(|(name, count)| format!(" {name}={count}")).collect();
        told += &format!(", {host}:{counts}");
    }
    if results.is_some_and(|results| !results.is_complete || results.dropped > 0) {
        told += ", the results are incomplete";
    }
    told
}

/// Compares the outcome and the results of each run.
fn check(runs: &BTreeMap<String, Run>, expected: &[(&str, &str)]) {
    for (task, expected) in expected {
        let run = runs.get(*task).unwrap_or_else(|| panic!("`{task}` was not run"));
        // ansible-core 2.19 also counts `include_role`.
        let told = match *task {
            "parts" => told(run).replace("ok=8", "ok=7"),
            "collected" => told(run).replace("ok=4", "ok=3"),
            _ => told(run),
        };
        assert_eq!(told, *expected, "{task}: {}\n{}", run.outcome, run.output.text);
    }
    assert_eq!(runs.len(), expected.len());
}

#[test]
fn plays_use_files_parts_and_plugins() {
    let host = TestHost::new();
    let facts = "- hosts: localhost
  connection: local
  tasks:
    - assert:
        that:
          - ansible_facts.system == 'Linux'
          - ansible_facts.python.version.major == 3
          - ansible_facts.env.HOME == lookup('env', 'HOME')
";
    add(&host, "facts", "", facts);
    put(&host, "parts/source.txt", "source\n");
    put(&host, "parts/page.j2", "Hello {{ whose }}\n");
    let files = r#"    - copy: { content: "one\n", dest: SHARED/lines }
    - copy: { src: parts/source.txt, dest: SHARED/source, mode: '0640' }
    - template: { src: parts/page.j2, dest: SHARED/page }
      vars: { whose: '{{ msg.who }}' }
    - file: { path: SHARED/folder, state: directory, mode: '0750' }
    - file: { path: SHARED/link, src: lines, state: link }
    - lineinfile: { path: SHARED/lines, line: two }
    - copy: { content: "one\ntwo\n", dest: SHARED/lines }
"#;
    add_here(&host, "files", "", files);
    put(&host, "roles/greeter/defaults/main.yml", "greeting: hello\n");
    let role = "- shell: echo {{ greeting }} >> SHARED/greeted\n  notify: tell\n";
    put(&host, "roles/greeter/tasks/main.yml", role);
    let handler = "- name: tell\n  shell: echo told >> SHARED/greeted\n";
    put(&host, "roles/greeter/handlers/main.yml", handler);
    put(&host, "parts/more.yml", "- command: 'true'\n  changed_when: item == 2\n");
    put(&host, "parts/second.yml", &format!("{HERE}    - debug: {{ msg: second }}\n"));
    let parts = "    - include_role: { name: greeter }
    - include_tasks: parts/more.yml
      loop: [1, 2]
- import_playbook: parts/second.yml
";
    add_here(&host, "parts", "", parts);
    put(&host, "parts/script.sh", "#!/bin/sh\necho $2 $1\n");
    let commands = "    - ansible.builtin.command: { cmd: cat, stdin: '{{ msg.who }}' }
      register: said
    - ansible.builtin.shell: echo $((6 * 7)) | tr 2 3
      register: sum
    - ansible.builtin.script: parts/script.sh a b
      register: script
    - assert:
        that:
          - said.stdout == 'Ada'
          - sum.stdout == '43'
          - (script.stdout | trim) == 'b a'
";
    add_here(&host, "commands", "", commands);
    let module = r#"from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"text": {"type": "str"}})
module.exit_json(changed=True, said=module.params["text"].upper())
"#;
    put(&host, "library/shouter.py", module);
    let filter = r#"class FilterModule:
    def filters(self):
        return {"backwards": lambda text: text[::-1]}
"#;
    put(&host, "filter_plugins/backwards.py", filter);
    let plugins = "    - shouter: { text: hi }
      register: module
    - assert: { that: [module.said == 'HI', ('abc' | backwards) == 'cba'] }
";
    add_here(&host, "plugins", "", plugins);
    let collection = "collections/ansible_collections/acme/site";
    let doubles =
        "class FilterModule:\n    def filters(self):\n        return {'double': lambda n: n * 2}\n";
    put(&host, &format!("{collection}/plugins/filter/maths.py"), doubles);
    let role = "- debug: { msg: '{{ 21 | acme.site.double }}' }\n";
    put(&host, &format!("{collection}/roles/answer/tasks/main.yml"), role);
    put(&host, &format!("{collection}/plugins/modules/shouter.py"), module);
    let collected = "    - include_role: { name: acme.site.answer }
    - acme.site.shouter: { text: ho }
      register: module
    - assert: { that: [module.said == 'HO'] }
";
    add_here(&host, "collected", "", collected);
    let tasks = ["facts", "files", "parts", "commands", "plugins", "collected"];
    let runs = run_all(&host, &tasks);
    let expected = [
        ("facts", "success, localhost: ok=2"),
        ("files", "success, localhost: ok=7 changed=6"),
        // ok=7: the task of the role, two includes with one task each, the handler, and the task of the
        // second playbook.
        ("parts", "success, localhost: ok=7 changed=3"),
        ("commands", "success, localhost: ok=4 changed=3"),
        ("plugins", "success, localhost: ok=2 changed=1"),
        ("collected", "success, localhost: ok=3 changed=1"),
    ];
    check(&runs, &expected);
    let read = |name: &str| fs::read_to_string(host.shared(name)).unwrap();
    let mode = |name: &str| fs::metadata(host.shared(name)).unwrap().mode() & 0o7777;
    let files = ["link", "source", "page", "greeted"].map(read);
    assert_eq!(files, ["one\ntwo\n", "source\n", "Hello Ada\n", "hello\ntold\n"]);
    assert_eq!((mode("source"), mode("folder")), (0o640, 0o750));
}

#[test]
fn plays_use_hosts_secrets_and_options() {
    let host = TestHost::new();
    put(&host, "site/hosts", "[web]\none\ntwo\n[web:vars]\nansible_connection=local\n");
    put(&host, "site/group_vars/all.yml", "everyone: all\n");
    put(&host, "site/group_vars/web.yml", "colour: green\n");
    put(&host, "site/host_vars/two.yml", "colour: blue\n");
    let hosts = "- hosts: web
  gather_facts: false
  tasks:
    - set_fact: { mine: '{{ inventory_hostname }}-{{ colour }}' }
    - command: 'true'
      when: inventory_hostname == 'one'
- hosts: two
  gather_facts: false
  tasks:
    - assert:
        that: [hostvars.one.mine == 'one-green', mine == 'two-blue', everyone == 'all']
";
    add(&host, "hosts", "[ansible]\ninventory = 'site/hosts'", hosts);
    let secret = |name: &str| format!("{name} = {{ file = '{}' }}", host.path(name).display());
    host.write("vault", "the-password-of-the-vault\n").write("token", "hunter2-hunter2\n");
    put(&host, "parts/sealed.yml", "answer: it was sealed\n");
    let sealed = Command::new("ansible-vault")
        .args(["encrypt", "--vault-password-file", "vault", "playbooks/parts/sealed.yml"])
        .current_dir(host.path(""))
        .output()
        .unwrap();
    assert!(sealed.status.success(), "{}", text(&sealed.stderr));
    let manifest =
        format!("[ansible]\nvault_password = 'vault'\n[grants.secrets]\n{}", secret("vault"));
    let opens = "    - include_vars: parts/sealed.yml
    - copy: { content: '{{ answer }}', dest: SHARED/answer }
";
    add_here(&host, "opens", &manifest, opens);
    let reads = r#"    - shell: cat "$CREDENTIALS_DIRECTORY/token"
      register: said
    - copy: { content: '{{ said.stdout }}', dest: SHARED/token }
    - debug: { msg: 'it is {{ said.stdout }}' }
"#;
    add_here(&host, "reads", &format!("[grants.secrets]\n{}", secret("token")), reads);
    let coloured = "    - shell: echo $COLOUR
      register: said
    - assert: { that: [said.stdout == 'green'] }
";
    add_here(&host, "coloured", "[grants]\nenv = { COLOUR = 'green' }", coloured);
    let dry = "    - copy: { content: x, dest: SHARED/never }
    - command: touch SHARED/never
    - assert: { that: [ansible_check_mode] }
";
    add_here(&host, "dry", "[ansible]\ncheck_mode = true", dry);
    let tagged = "    - debug: { msg: runs }
      tags: deploy
    - fail:
      tags: [deploy, slow]
    - fail:
";
    add_here(&host, "tagged", "[ansible]\ntags = ['deploy']\nskip_tags = ['slow']", tagged);
    let runs = run_all(&host, &["hosts", "opens", "reads", "coloured", "dry", "tagged"]);
    let expected = [
        ("hosts", "success, one: ok=2 changed=1, two: ok=2 skipped=1"),
        ("opens", "success, localhost: ok=2 changed=1"),
        ("reads", "success, localhost: ok=3 changed=2"),
        ("coloured", "success, localhost: ok=2 changed=1"),
        ("dry", "success, localhost: ok=2 changed=1 skipped=1"),
        ("tagged", "success, localhost: ok=1"),
    ];
    check(&runs, &expected);
    let read = |name: &str| fs::read_to_string(host.shared(name)).unwrap();
    assert_eq!(["answer", "token"].map(read), ["it was sealed", "hunter2-hunter2"]);
    assert!(!host.shared("never").exists());
    let kept = &runs["reads"].output.text;
    assert!(kept.contains("it is [secret]") && !kept.contains("hunter2"), "{kept}");
}

#[test]
fn plays_that_fail_or_leave_something_behind_are_told_apart() {
    let host = TestHost::new();
    let rescues = "    - block:
        - command: 'false'
        - debug: { msg: never }
      rescue:
        - debug: { msg: rescued }
      always:
        - debug: { msg: always }
    - command: 'false'
      ignore_errors: true
    - debug: { msg: never }
      when: false
    - debug: { msg: '{{ item }}' }
      loop: [1, 2, 3]
";
    add_here(&host, "rescues", "", rescues);
    // The unusual duration identifies the processes of this test.
    let leaves = "    - shell: touch SHARED/started; exec sleep 60023
      async: 60023
      poll: 0
    - wait_for: { path: SHARED/started }
";
    add_here(&host, "leaves", "", leaves);
    add_here(&host, "fails", "", "    - debug:\n    - fail: { msg: it is broken }\n    - debug:\n");
    // No grant allows this port.
    let far = "here ansible_connection=local\nfar ansible_host=127.0.0.1 ansible_port=1\n";
    put(&host, "away", far);
    let away = "- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'true'\n";
    add(&host, "partly", "[ansible]\ninventory = 'away'", away);
    let absent = "- hosts: absent\n  gather_facts: false\n  tasks:\n    - debug:\n";
    add(&host, "nobody", "", absent);
    add(&host, "optional", "[ansible]\nno_hosts = 'success'", absent);
    let all = ["rescues", "leaves", "fails", "partly", "nobody", "optional"];
    let runs = run_all(&host, &all);
    let expected = [
        ("rescues", "success, localhost: ok=4 changed=1 skipped=1 rescued=1 ignored=1"),
        ("leaves", "success, localhost: ok=2 changed=1"),
        ("fails", "exit, localhost: ok=1 failed=1"),
        ("partly", "retry, far: unreachable=1, here: ok=1 changed=1"),
        ("nobody", "no-hosts"),
        ("optional", "success"),
    ];
    check(&runs, &expected);
    assert_eq!(all.map(|name| runs[name].attempt), [1, 1, 2, 2, 2, 1]);
    let killed = runs["leaves"].playbook.as_ref().unwrap().killed;
    assert_eq!(killed, 4, "two processes of Ansible's wrapper, the module and `sleep`");
    assert_eq!(processes_with("60023"), 0);
    let said = runs["fails"].outcome.to_string();
    assert_eq!(said, "exit: exit status 2: task `fail` on localhost: it is broken");
    let said = runs["partly"].outcome.to_string();
    assert!(said.starts_with("retry: unreachable: task `command` on far: "), "{said}");
    assert!(said.contains("127.0.0.1 port 1: Permission denied"), "{said}");
}

/// Some parts of Ansible read the path of the home directory from the environment, others from the list of
/// users.
#[test]
fn the_home_of_a_play_is_its_own_folder_whoever_asks() {
    let host = TestHost::new();
    let polled = "    - command: sleep 1\n      async: 60\n      poll: 1\n";
    add_here(&host, "polled", "", polled);
    let at_home = r#"    - copy: { content: x, dest: ~/file }
    - shell: test -f "$HOME/file"
"#;
    add_here(&host, "at-home", "", at_home);
    let runs = run_all(&host, &["polled", "at-home"]);
    let expected = [
        ("polled", "success, localhost: ok=1 changed=1"),
        ("at-home", "success, localhost: ok=2 changed=2"),
    ];
    check(&runs, &expected);
}

#[test]
fn becoming_another_user_on_this_machine_fails_and_is_noted() {
    let host = TestHost::new();
    host.write("loopabull.toml", "[playbook]\nuser = 'nobody'\n");
    let becomes = HERE.replace("  tasks:", "  become: true\n  tasks:") + "    - command: id -u\n";
    add(&host, "becomes", "", &becomes);
    host.write("message.json", message("m-1", "becomes", "{}"));
    let output = host.run(&["--config", "loopabull.toml", "test", "becomes", "message.json"]);
    let said = text(&output.stdout);
    let last = said.lines().last().unwrap();
    let failed = "becomes on message m-1: exit: exit status 2: task `command` on localhost: ";
    assert!(last.starts_with(failed) && last.contains("sudo"), "{said}");
    let output = host.run(&["--config", "loopabull.toml", "check"]);
    let said = text(&output.stdout);
    let note = "note: `becomes.yml`: `become` has no effect on localhost";
    assert!(said.contains(note) && said.ends_with("no problems found\n"), "{said}");
}

/// `ansible-playbook` itself also runs such plays on this machine without ssh, so no ssh server is needed.
#[test]
fn hosts_that_nobody_names_are_this_machine_without_ssh() {
    let host = TestHost::new();
    let tasks = "  tasks:\n    - command: 'true'\n    - assert: { that: ansible_python.version.major == 3 }\n";
    for hosts in ["localhost", "all"] {
        add(&host, hosts, "", &format!("- hosts: {hosts}\n{tasks}"));
    }
    let runs = run_all(&host, &["localhost", "all"]);
    let told = "success, localhost: ok=3 changed=1";
    check(&runs, &[("localhost", told), ("all", told)]);
}

/// The kernel does not apply its limit on processes to root. If a manifest sets `processes` and nothing else
/// can enforce the limit, the play is not run.
#[test]
fn a_limit_of_processes_that_is_named_is_held_or_the_play_is_not_run() {
    for user in ["root", "nobody"] {
        let host = TestHost::new();
        host.write("loopabull.toml", format!("[playbook]\nuser = '{user}'\n"));
        let manifest = "[limits]\nprocesses = 100\n[retry]\nmax_attempts = 1";
        host.add_playbook("a", manifest, "    - debug: { msg: x }\n");
        let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
        host.inject(&[message("m-1", "a", "{}")]);
        // Without the limit, the task is refused and the message waits.
        let refused = || daemon.status()["problems"].to_string().contains("task `a`: refused");
        wait_for("the run or the refusal", || (!host.runs().is_empty() || refused()).then_some(()));
        let problems = daemon.status()["problems"].to_string();
        daemon.stop();
        let Some(run) = host.runs().pop() else {
            assert!(problems.contains("processes") && user == "root", "{problems}");
            continue;
        };
        let mut layers = run.playbook.iter().flat_map(|report| &report.layers);
        assert!(layers.any(|one| one.layer == "processes" && one.state == LayerState::Active));
        assert!(run.outcome.is_success(), "{user}: {}", run.outcome);
    }
}
