//! Settings of Ansible are the operator's: the configuration file, the manifest and `/etc/ansible` count as for
//! `ansible-playbook` itself, and the daemon adds to them.

use std::fs;

use loopabull_testbed::ansible_playbooks;
use serde_json::{Value, json};

use crate::test_host::{TestHost, message, text};

/// A callback plugin beside the playbooks, which creates a file.
const PLUGIN: &str = r#"
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "marks"

    def v2_playbook_on_start(self, playbook):
        open("MARK", "w").close()
"#;

/// Writes what Ansible uses to a file.
const REPORT: &str = "    - copy:
        dest: 'GOT'
        content: \"{{ {'ssh': lookup('config', 'ssh_args', plugin_type='connection', plugin_name='ssh'),
          'tmp': lookup('config', 'remote_tmp', plugin_type='shell', plugin_name='sh'),
          'host': inventory_hostname, 'lang': lookup('env', 'LANG'), 'size': size | default(0),
          'extra': extra | default(none)} | to_json }}\"
";

fn host() -> TestHost {
    let host = TestHost::new();
    fs::create_dir(host.path("playbooks/plugs")).unwrap();
    let mark = host.shared("mark");
    host.write("playbooks/plugs/marks.py", PLUGIN.replace("MARK", mark.to_str().unwrap()));
    host.write("message.json", message("m-1", "a", r#"{"size":1}"#));
    host
}

/// Runs the playbook once. Returns what it reported, and whether the callback plugin ran.
fn run(host: &TestHost, flags: &[&str], hosts: &str, manifest: &str) -> (Value, bool) {
    let report = REPORT.replace("GOT", host.shared("got").to_str().unwrap());
    host.add_playbook("a", manifest, &report);
    let play = fs::read_to_string(host.path("playbooks/a.yml")).unwrap();
    host.write("playbooks/a.yml", play.replace("hosts: localhost", &format!("hosts: {hosts}")));
    drop(fs::remove_file(host.shared("mark")));
    let output = host.run(&[flags, &["test", "a", "message.json"]].concat());
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let got = fs::read_to_string(host.shared("got")).unwrap();
    (serde_json::from_str(&got).unwrap(), host.shared("mark").exists())
}

#[test]
fn the_configuration_of_the_operator_counts() {
    for ansible in ansible_playbooks() {
        let host = host();
        host.write(
            "loopabull.toml",
            format!("[playbook]\nansible_playbook = '{}'\n", ansible.display()),
        );
        host.write(
            "playbooks/web",
            "[web]\none ansible_connection=local\ntwo ansible_connection=local\n",
        );
        let tmp = host.shared("tmp").display().to_string();
        host.write(
            "playbooks/ansible.cfg",
            format!(
                "[defaults]\ninventory = web\ncallback_plugins = plugs\nremote_tmp = {tmp}\n\
                 [ssh_connection]\nssh_args = -o ProxyJump=bastion\n"
            ),
        );
        let flags = ["--config", "loopabull.toml"];
        let (got, has_mark) = run(&host, &flags, "web", "[ansible]\nlimit = 'two'\n");
        assert!(has_mark, "the callback plugin of the operator did not run");
        assert_eq!((&got["host"], &got["tmp"]), (&json!("two"), &json!(tmp)));
        let ssh = got["ssh"].as_str().unwrap();
        assert!(ssh.starts_with("-o ProxyJump=bastion -o UserKnownHostsFile="), "{ssh}");
        // The inventory of the manifest comes before that of the configuration.
        host.write("playbooks/other", "[web]\nthree ansible_connection=local\n");
        let (got, _) = run(&host, &flags, "web", "[ansible]\ninventory = 'other'\n");
        assert_eq!(got["host"], "three");
    }
}

/// Ansible reads its file with Python's `configparser`, which knows many forms.
#[test]
fn every_form_of_a_setting_is_read() {
    let host = host();
    for form in [
        "callback_plugins = plugs",
        "callback_plugins:plugs",
        "CALLBACK_PLUGINS = ./plugs",
        "callback_plugins = nothing:plugs",
        "callback_plugins = plugs ; a comment",
    ] {
        host.write("playbooks/ansible.cfg", format!("[defaults]\n{form}\n"));
        let (got, has_mark) = run(&host, &[], "localhost", "");
        assert!(has_mark, "`{form}` was lost");
        // The settings that the operator leaves out are ours.
        assert_eq!(
            (&got["tmp"], &got["host"]),
            (&json!("$HOME/.ansible/tmp"), &json!("localhost"))
        );
        assert!(got["ssh"].as_str().unwrap().contains("ControlMaster=auto"), "{got}");
    }
}

#[test]
fn a_manifest_sets_variables_and_options_of_ansible() {
    let host = host();
    let manifest = "[grants]\nenv = { ANSIBLE_SSH_ARGS = '-o ProxyJump=b', LANG = 'C', ANSIBLE_CALLBACK_PLUGINS_X = '1' }\n\
                    [ansible]\nvariables = ['size']\nextra_vars = { size = 7, extra = { list = ['x', true] } }\n";
    let (got, _) = run(&host, &[], "localhost", manifest);
    assert!(
        got["ssh"].as_str().unwrap().starts_with("-o ProxyJump=b -o UserKnownHostsFile="),
        "{got}"
    );
    // The operator's variables have precedence over those of a message.
    assert_eq!((&got["lang"], &got["size"]), (&json!("C"), &json!(7)));
    assert_eq!(got["extra"], json!({ "list": ["x", true] }));
    for name in ["ANSIBLE_CONFIG", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_SSH_CONTROL_PATH_DIR"] {
        host.write("playbooks/a.toml", format!("[grants]\nenv = {{ {name} = 'x' }}\n"));
        let said = text(&host.run(&["check"]).stdout);
        let reason =
            format!("must not set the environment variable `{name}`, because the daemon sets it");
        assert!(said.contains(&reason), "{said}");
    }
}

#[test]
fn a_configuration_that_ansible_cannot_read_is_a_problem() {
    let host = host();
    host.add_playbook("a", "", "    - ping:\n");
    host.write("playbooks/ansible.cfg", "[defaults]\nforks = many\n");
    let output = host.run(&["check"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("problem: `a.yml`") && said.contains("many"), "{said}");
}

/// No host matches the limit now. That is no fault of the playbook.
#[test]
fn a_limit_that_matches_no_host_is_a_run_without_hosts() {
    for ansible in ansible_playbooks() {
        let host = host();
        let config = format!("[playbook]\nansible_playbook = '{}'\n", ansible.display());
        host.write("loopabull.toml", config);
        let check = |no_hosts: &str, code: i32, end: &str| {
            let manifest = format!("[ansible]\nlimit = 'web*'\nno_hosts = '{no_hosts}'\n");
            host.add_playbook("a", &manifest, "    - ping:\n");
            let flags = ["--config", "loopabull.toml"];
            let output = host.run(&[&flags[..], &["test", "a", "message.json"]].concat());
            let said = text(&output.stdout);
            assert!(output.status.code() == Some(code) && said.ends_with(end), "{said}");
            assert!(host.run(&[&flags[..], &["check"]].concat()).status.success());
        };
        check("success", 0, "a on message m-1: success\n");
        check(
            "failure",
            1,
            "a on message m-1: no-hosts: no play matched a host, so nothing was done\n",
        );
    }
}

/// A script that starts Ansible hides its settings. Then the configuration is left alone.
#[test]
fn a_configuration_counts_although_ansible_cannot_be_asked() {
    use std::os::unix::fs::PermissionsExt;
    let host = host();
    let wrapper = host.path("wrapper");
    fs::write(&wrapper, "#!/bin/sh\nexec /usr/bin/ansible-playbook \"$@\"\n").unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    host.write(
        "loopabull.toml",
        format!("[playbook]\nansible_playbook = '{}'\n", wrapper.display()),
    );
    host.write("playbooks/web", "[web]\none ansible_connection=local\n");
    host.write(
        "playbooks/ansible.cfg",
        "[defaults]\ninventory = web\ncallback_plugins = plugs\n\
         [ssh_connection]\nssh_args = -o ProxyJump=bastion\n",
    );
    let (got, has_mark) = run(&host, &["--config", "loopabull.toml"], "web", "");
    assert!(has_mark, "the callback plugin of the operator did not run");
    assert_eq!((&got["host"], &got["ssh"]), (&json!("one"), &json!("-o ProxyJump=bastion")));
}

/// The configuration changes while the daemon runs. Each run uses the one that it found.
#[test]
fn a_changed_configuration_counts_for_the_next_run() {
    let host = host();
    for name in ["one", "two"] {
        host.write(&format!("playbooks/{name}"), format!("{name} ansible_connection=local\n"));
    }
    let config = |name: &str| {
        // A file of the same size and time, as tools for configurations write it.
        let new = host.path("new.cfg");
        fs::write(&new, format!("[defaults]\ninventory = {name}\n")).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&new).unwrap().set_modified(time).unwrap();
        fs::rename(new, host.path("playbooks/ansible.cfg")).unwrap();
    };
    let tasks = format!(
        "    - shell: echo {{{{ inventory_hostname }}}} >> {}\n",
        host.shared("hosts").display()
    );
    config("one");
    host.write("playbooks/a.toml", "");
    host.add_playbook("a", "", &tasks);
    let play = fs::read_to_string(host.path("playbooks/a.yml")).unwrap();
    host.write("playbooks/a.yml", play.replace("hosts: localhost", "hosts: all"));
    let daemon = host.start(&["--workers", "1"]);
    for (id, name) in [("m-1", "one"), ("m-2", "one"), ("m-3", "two"), ("m-4", "one")] {
        config(name);
        host.inject(&[message(id, "a", "{}")]);
        daemon.wait_until_idle();
    }
    daemon.stop();
    assert_eq!(fs::read_to_string(host.shared("hosts")).unwrap(), "one\none\ntwo\none\n");
}
