//! Template injection: Ansible executes no part of a message, and the playbook receives the message
//! unchanged. The tests run a playbook on messages that once did harm and on random messages. They do so with
//! three versions of Ansible, each with cold and warm starts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use loopabull_testbed::ansible_playbooks;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::test_host::TestHost;

/// The number of random messages for each version of Ansible with warm starts.
const RANDOM: usize = 4;

/// Tasks that use the message in all ways in which templates in a message were once executed. The last task
/// writes the message to a file.
const TASKS: &str = "    - debug: { var: msg }
    - debug: { msg: '{{ msg }}' }
    - set_fact: { copied: '{{ msg }}' }
    - debug: { msg: '{{ item }}' }
      loop: '{{ [copied, [copied]] }}'
    - debug: { msg: '{{ indirect }}' }
      vars: { indirect: '{{ copied }}', more: '{{ indirect }}' }
    - add_host: { name: other, carried: '{{ msg }}' }
    - debug: { msg: \"{{ hostvars['other'].carried }}\" }
    - debug: { msg: \"{{ (msg | to_json) ~ ' and ' ~ (msg | string) }}\" }
    - debug: { msg: '{{ loopabull.headers }}' }
    - debug: { msg: '{{ item.key }} is {{ item.value }}' }
      loop: '{{ (msg if msg is mapping else {}) | dict2items }}'
    - debug: { msg: '{{ item }}' }
      loop: '{{ (msg if msg is mapping else {}).keys() | list }}'
    - debug: { msg: '{{ item.key }}' }
      with_dict: '{{ msg if msg is mapping else {} }}'
    - set_fact: { first: '{{ msg | first }}' }
      when: msg is mapping and msg | length > 0
    - debug: { msg: '{{ first | default(0) }}' }
    - copy: { content: '{{ msg | to_json }}', dest: 'SHARED/{{ loopabull.id }}' }
";

/// Returns random texts that are templates, YAML or markers of Ansible, or look like them.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{{ lookup('pipe','touch PWNED') }}".to_owned()),
        Just("{% set x = lookup('pipe','touch PWNED') %}{{ x }}".to_owned()),
        Just("{{ ''.__class__.__mro__ }}".to_owned()),
        Just("!!python/object/apply:os.system ['touch PWNED']".to_owned()),
        Just("$ANSIBLE_VAULT;1.1;AES256".to_owned()),
        Just("__ansible_unsafe".to_owned()),
        Just("!unsafe x".to_owned()),
        "[{}%#'\":,\\[\\]!&*|>\\\\ a-z\n\t-]{0,12}",
        "\\PC{0,8}",
        "[\u{0}-\u{20}\u{7f}-\u{a0}\u{2028}\u{202e}\u{feff}😀]{0,4}",
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        text(),
        Just("__ansible_vault".to_owned()),
        Just("__ansible_unsafe".to_owned()),
        Just("ansible_connection".to_owned()),
        "[a-z_]{1,6}",
    ]
}

/// Returns random numbers: with a fraction, with an exponent, or integers of 19 to 61 digits.
fn number() -> impl Strategy<Value = Value> {
    let float =
        any::<f64>().prop_filter("JSON has only finite numbers", |number| number.is_finite());
    prop_oneof![
        float.prop_map(|number| format!("{number:?}")),
        (1..1000i32, -30..30i32).prop_map(|(digits, exponent)| format!("{digits}e{exponent}")),
        "-?[1-9][0-9]{18,60}",
    ]
    .prop_map(|text| serde_json::from_str(&text).unwrap())
}

/// Returns whether two bodies are the same. Integers are compared digit by digit. Other numbers are compared
/// by value, because the same value can be written in many ways.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let is_integer = |text: &str| text.bytes().all(|b| b == b'-' || b.is_ascii_digit());
            let (one, other) = (one.to_string(), other.to_string());
            let as_float = |text: &str| text.parse::<f64>().unwrap();
            one == other
                || !(is_integer(&one) && is_integer(&other)) && as_float(&one) == as_float(&other)
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |(key, value)| other.get(key).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(has)
        }
        (one, other) => one == other,
    }
}

fn body() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        number(),
        text().prop_map(Value::from),
        "[-+.0-9a-fx:_ ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(key(), inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns random bodies.
fn random(count: usize) -> impl Iterator<Item = Value> {
    let mut runner = TestRunner::default();
    std::iter::repeat_with(move || body().new_tree(&mut runner).unwrap().current()).take(count)
}

/// Returns a few bodies that together contain all known bodies: one map with the keys of all known maps, one
/// list of all known bodies, and each known text. There are few, because a run takes seconds of processor
/// time.
fn packed() -> Vec<Value> {
    let (maps, others): (Vec<_>, Vec<_>) = known().into_iter().partition(Value::is_object);
    let keys = maps.iter().filter_map(Value::as_object).flatten();
    let one: serde_json::Map<_, _> =
        keys.map(|(key, value)| (key.clone(), value.clone())).collect();
    let texts: Vec<_> = others.iter().filter(|body| body.is_string()).cloned().collect();
    let all = Value::from([maps, others].concat());
    // Two known maps have a template in the key and a plain value. In the merged map another value replaces
    // the plain one, so these two maps are also bodies of their own.
    let keys_alone = known().into_iter().filter(has_plain_value).collect();
    [vec![Value::Object(one), all], texts, keys_alone].concat()
}

/// Returns whether a body is a map with one key whose value is 5, as a number or as a text.
fn has_plain_value(body: &Value) -> bool {
    let plain = |value: &Value| value == "5" || value == 5;
    body.as_object().is_some_and(|map| map.len() == 1 && map.values().all(plain))
}

/// Returns the bodies that did harm in an earlier version of Ansible or of this host.
fn known() -> Vec<Value> {
    vec![
        json!({"plain": "{{ lookup('pipe','touch PWNED') }}", "list": ["{{ x }}", {"a": "{{ y }}"}]}),
        json!({"{{ lookup('pipe','touch PWNED') }}": "{{ lookup('file','/etc/passwd') }}"}),
        // Only the key is a template. The value is not a template, so it is not marked unsafe.
        json!({"{{ lookup('pipe','touch PWNED') }}": "5"}),
        json!({"{{ lookup('pipe','touch PWNED') }}": 5}),
        json!({"ansible_ssh_common_args": "-o ProxyCommand='touch PWNED'", "ansible_become": true}),
        json!({"v": {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n00"}}),
        json!({"u": {"__ansible_unsafe": "{{ lookup('pipe','touch PWNED') }}"}}),
        json!("{{ lookup('pipe','touch PWNED') }}"),
        // YAML reads these texts as other types than strings if they have no quotes.
        json!([
            "", "5", "-1.5e3", "0x1F", "1:30", "yes", "Off", "null", "~", "=", "<<", "*", "&", "!",
            "5\n", ".nan"
        ]),
        json!({"day": "2026-11-27", "at": "2001-12-14t21:59:43.10-05:00", "": "", "=": "+1_0"}),
        json!("2026"),
        json!(["{{ lookup('env','HOME') }}", "{% raw %}", "{#", "}}", "{{"]),
        serde_json::from_str("[1.5, -0.1, 1e5, 1e16, 1E-7, 123456789012345678901234567890]")
            .unwrap(),
    ]
}

fn check(ansible: &Path, start: &str, bodies: Vec<Value>) {
    let host = TestHost::new();
    let config =
        format!("[playbook]\nansible_playbook = '{}'\nstart = '{start}'\n", ansible.display());
    host.write("loopabull.toml", config);
    host.add_playbook("a", "", &TASKS.replace("SHARED", host.path("shared").to_str().unwrap()));
    let pwned = host.shared("pwned");
    let mut sent = BTreeMap::new();
    let mut messages = Vec::new();
    for (number, body) in bodies.into_iter().enumerate() {
        let body = serde_json::to_string(&body).unwrap().replace("PWNED", pwned.to_str().unwrap());
        let id = format!("m-{number}");
        messages.push(format!(r#"{{"topic":"a","msg_id":"{id}","msg":{body}}}"#));
        sent.insert(id, serde_json::from_str::<Value>(&body).unwrap());
    }
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "3"]);
    host.inject(&messages);
    daemon.wait_until_idle_for(std::time::Duration::from_secs(300));
    daemon.stop();
    assert!(!pwned.exists(), "{} executed a part of a message", ansible.display());
    let runs = host.runs();
    assert_eq!(runs.len(), sent.len());
    for run in &runs {
        let id = run.message_id.to_string();
        let said =
            || format!("{id} with {}: {}\n{}", ansible.display(), run.outcome, run.output.text);
        assert!(run.outcome.is_success(), "{}", said());
        let got: Value =
            serde_json::from_str(&fs::read_to_string(host.shared(&id)).unwrap()).unwrap();
        assert!(
            is_same(&got, &sent[&id]),
            "the playbook received {}, but {} was sent\n{}",
            got,
            sent[&id],
            said()
        );
    }
    let warm = runs.iter().filter(|run| run.playbook.as_ref().unwrap().cold.is_none()).count();
    // With warm starts the first run is still cold, so the test requires only that some runs are warm.
    assert_eq!(warm > 0, start == "warm", "{warm} of {} runs were warm", runs.len());
}

#[test]
fn a_cold_ansible_executes_nothing_and_loses_nothing() {
    for ansible in ansible_playbooks() {
        check(&ansible, "cold", packed().into_iter().chain(random(1)).collect());
    }
}

#[test]
fn a_warm_ansible_executes_nothing_and_loses_nothing() {
    for ansible in ansible_playbooks() {
        check(&ansible, "warm", packed().into_iter().chain(random(RANDOM)).collect());
    }
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_each_known_body_is_a_message_of_its_own() {
    for ansible in ansible_playbooks() {
        for start in ["cold", "warm"] {
            check(&ansible, start, known().into_iter().chain(random(12)).collect());
        }
    }
}
