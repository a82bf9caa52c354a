//! Hostile messages. A playbook receives them as plain data, or they are refused. No part of a message is
//! executed.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::test_host::{TestHost, text};

/// Returns a host with a playbook, and the path of a file. The playbook uses the message in all ways in which
/// templates in a message were once executed, and writes the message to the file.
fn host() -> (TestHost, PathBuf) {
    let host = TestHost::new();
    let got = host.shared("got.json");
    let tasks = format!(
        "    - debug: {{ msg: 'connection is {{{{ ansible_connection }}}}' }}
    - debug: {{ var: msg }}
    - debug: {{ msg: '{{{{ msg }}}}' }}
    - set_fact: {{ copied: '{{{{ msg }}}}' }}
    - debug: {{ msg: '{{{{ item }}}}' }}
      loop: '{{{{ [copied] }}}}'
    - debug: {{ msg: '{{{{ indirect }}}}' }}
      vars: {{ indirect: '{{{{ copied }}}}' }}
    - copy: {{ content: '{{{{ msg | to_json }}}}', dest: '{}' }}
",
        got.display()
    );
    host.add_playbook("org.example.hostile", "", &tasks);
    (host, got)
}

/// Runs the playbook on a message with this body, and checks that the playbook wrote the same body.
fn check(msg: &Value) {
    let (host, got) = host();
    let pwned = host.shared("pwned");
    let msg = serde_json::to_string(msg).unwrap().replace("PWNED", pwned.to_str().unwrap());
    let file = format!(r#"{{"topic":"org.example.hostile","msg_id":"m-1","msg":{msg}}}"#);
    host.write("message.json", file);
    let output = host.run(&["test", "org.example.hostile", "message.json"]);
    let output = text(&output.stdout);
    assert!(!pwned.exists(), "a template was executed: {output}");
    assert!(output.ends_with("message m-1: success\n"), "{}", tail(&output));
    assert!(output.contains("connection is local"), "{}", &output[..500]);
    let got: Value = serde_json::from_str(&fs::read_to_string(got).unwrap()).unwrap();
    let sent: Value = serde_json::from_str(&msg).unwrap();
    assert!(got == sent, "the sent and received bodies differ:\n{}\n{}", short(&sent), short(&got));
}

fn tail(text: &str) -> String {
    text.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect()
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(2000).collect()
}

#[test]
fn templates_in_values_stay_text() {
    check(&json!({
        "plain": "{{ lookup('pipe','touch PWNED') }}",
        "nested": [{"deep": ["{{ lookup('pipe','touch PWNED') }}"]}],
        "statement": "{% for x in [1] %}{{ lookup('pipe','touch PWNED') }}{% endfor %}",
        "half": "{{ lookup('pipe',",
        "comment": "{# x #}",
    }));
}

#[test]
fn templates_in_keys_stay_text() {
    check(&json!({"{{ lookup('pipe','touch PWNED') }}": {"{{ inner }}": 1}, "{% raw %}": 2}));
}

#[test]
fn variables_of_the_connection_stay_inside_the_message() {
    check(&json!({
        "ansible_connection": "ssh",
        "ansible_ssh_common_args": "-o ProxyCommand='touch PWNED'",
        "ansible_python_interpreter": "PWNED",
        "ansible_become": true,
        "msg": {"hosts": "all"},
        "hostvars": {},
    }));
}

#[test]
fn markers_of_ansible_are_plain_keys() {
    check(&json!({
        "vault": {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n00"},
        "unsafe": {"__ansible_unsafe": "{{ lookup('pipe','touch PWNED') }}"},
        "type": {"__ansible_type": "x"},
    }));
    check(&json!({"__ansible_vault": "x"}));
}

#[test]
fn a_string_of_a_megabyte_arrives_whole() {
    check(&json!({"text": "{{ x }} é😀 ".repeat(100_000)}));
}

#[test]
fn strings_that_look_like_yaml_stay_strings() {
    check(&json!({
        "words": ["yes", "no", "null", "~", "1e5", "0x10", "1_000", "12:30:45", "2026-11-22", ""],
        "tags": ["!!python/object/apply:os.system ['touch PWNED']", "!vault |", "&a", "*a", "<<"],
        "quotes": ["\"", "\\", "'", "a\"b\\c", "- x", "a: b", "# x", "---", "...", "}", "]"],
        "yes": 1, "null": 2, "<<": {"merged": true}, "=": 3, "": 4,
    }));
}

#[test]
fn every_kind_of_character_arrives() {
    let controls: String = (0..0xa0).filter_map(char::from_u32).collect();
    check(&json!({
        "controls": controls,
        "separators": "\u{85}\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}\u{200b}\u{202e}",
        "planes": "é€\u{e000}😀\u{10ffff}",
        "lines": "a\r\nb\n\n  c\t ",
    }));
}

#[test]
fn numbers_arrive_as_numbers() {
    check(&json!([0, -1, 1.5, 123_456_789_012_i64, true, false, null, [], {}]));
    let big: Value = serde_json::from_str("[123456789012345678901234567890]").unwrap();
    check(&big);
}

#[test]
fn deeply_nested_values_arrive() {
    check(&(0..60).fold(json!("{{ x }}"), |inner, _| json!([{"k": inner}])));
}

/// Checks that a body is refused for this reason before Ansible starts.
fn check_refused(msg: &str, expected: &str) {
    let (host, got) = host();
    let file = format!(r#"{{"topic":"org.example.hostile","msg_id":"m-1","msg":{msg}}}"#);
    host.write("message.json", file);
    let output = host.run(&["test", "org.example.hostile", "message.json"]);
    let output = text(&output.stdout) + &text(&output.stderr);
    assert!(output.contains(expected), "{output}");
    assert!(!got.exists());
}

#[test]
fn values_that_python_cannot_read_are_refused() {
    check_refused(r#""\ud800""#, "lone surrogate");
    check_refused(r#"{"$serde_json::private::Number":"123"}"#, "a reserved key");
    check_refused("1e400", "too large for a float");
    check_refused(&"1".repeat(4200), "a number in the message has 4200 digits");
    check_refused(&"1".repeat(5000), "integer has more than 4300 digits");
    let key = "k".repeat(2000);
    check_refused(&format!(r#"{{"{key}":1}}"#), "a key in the message has 2000 characters");
    check_refused(&("[".repeat(500) + &"]".repeat(500)), "nested deeper");
}
