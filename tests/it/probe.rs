//! A playbook has no more access than a program that the launcher starts directly. The playbook runs the
//! probe of the launcher's tests, once as an Ansible module and once in a shell task. The probe must not be
//! allowed anything that is denied to it in those tests.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::test_host::{TestHost, message, text};

const PROBE: &str = include_str!("../../host/crates/launcher/tests/probe.py");
/// The expected access of a program that runs as root in a private root file system. The other tables are for
/// other users, or for programs without a private root file system.
const ROOT: &str = include_str!("../../host/crates/launcher/tests/probe/root.txt");

#[test]
fn a_play_can_do_no_more_than_a_program() {
    let host = TestHost::new();
    for folder in ["outside", "playbooks/library", "kept"] {
        fs::create_dir(host.path(folder)).unwrap();
    }
    host.write("outside/secret", "s3cret").write("kept/journal.db", "journal");
    host.write("playbooks/library/probe", PROBE).write("shared/probe.py", PROBE);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let _socket = UnixListener::bind(host.path("docker.sock")).unwrap();
    let input = json!({
        "granted_rw": host.path("shared"),
        "granted_ro": host.path("playbooks"),
        "state_dir": host.path("kept"),
        "outside": host.path("outside"),
        "closed_port": closed.local_addr().unwrap().port(),
        "unix_socket": host.path("docker.sock"),
        "victim_pid": std::process::id(),
        "secret_env": "API_TOKEN",
    });
    host.write("shared/input.json", input.to_string());
    let shared = host.path("shared");
    let tasks = format!(
        "    - set_fact: {{ input: \"{{{{ lookup('file', '{0}/input.json') | from_json }}}}\" }}
    - set_fact: {{ mine: \"{{{{ {{'run_dir': lookup('env', 'HOME')}} | combine(input) }}}}\" }}
    - probe: '{{{{ mine }}}}'
      register: module
    - copy: {{ content: '{{{{ module.table | to_json }}}}', dest: '{0}/module' }}
    - copy: {{ content: '{{{{ mine | to_json }}}}', dest: '{0}/mine.json' }}
    - shell: python3 {0}/probe.py --json {0}/mine.json > {0}/shell
",
        shared.display()
    );
    host.add_playbook("a", "", &tasks);
    host.write("message.json", message("m-1", "a", "{}"));
    let output = host.command(&["test", "a", "message.json"]).env("API_TOKEN", "secret").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let allowed: BTreeSet<&str> =
        ROOT.lines().filter_map(|line| line.strip_prefix("allowed: ")).collect();
    for way in ["module", "shell"] {
        let said: Value =
            serde_json::from_str(&fs::read_to_string(host.shared(way)).unwrap()).unwrap();
        let table = said.get("table").unwrap_or(&said).as_object().unwrap();
        let with = |verdict: &str| {
            let rows = table.iter().filter(move |(_, row)| row["verdict"] == verdict);
            rows.map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>()
        };
        let more: Vec<_> = with("allowed").difference(&allowed).copied().collect();
        assert_eq!(more, [""; 0], "allowed as a {way}, but not to a program");
        assert!(with("denied").len() > 50, "{:?}", with("denied"));
        for name in ["read outside", "read the journal", "connect to a Unix socket"] {
            assert!(!with("untried").contains(name), "`{name}` was not tried as a {way}");
        }
    }
}
