//! The variables of a playbook: a YAML file with the message, for `--extra-vars` of Ansible.
//!
//! This module decides which variables a playbook gets. By default the body is only in the variable `msg`. A
//! key of the body becomes a variable of its own only if the manifest asks for that, because a top-level
//! variable can change connections or override variables of the play.

use loopabull_model::Message;
use serde_json::{Map, Value};

use crate::error::VariablesError;
use crate::yaml::{self, MAX_KEY};

/// The facts about the run that the variables contain in addition to the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFacts<'a> {
    pub run_id: &'a str,
    pub attempt: u32,
}

/// Returns the text of the variables file. The variable `msg` is the body of the message. The variable
/// `loopabull` contains its other parts and the facts about the run.
///
/// # Errors
///
/// Fails if a key or a number in the message is too large for Ansible.
pub(crate) fn write(message: &Message, facts: RunFacts<'_>) -> Result<String, VariablesError> {
    let body = message.body.to_value();
    write_file([("msg", &body), ("loopabull", &about(message, facts))])
}

/// Returns the text of a variables file in which each key of the body is a variable too, as in Fedora's
/// loopabull. The sender of the message chooses these names, so a message with a name that Ansible reserves
/// is refused. Keys that are not valid variable names are only in `msg`.
///
/// # Errors
///
/// Fails like [`write`], and also if Ansible reserves the name of a key.
pub(crate) fn write_top_level(
    message: &Message,
    facts: RunFacts<'_>,
) -> Result<String, VariablesError> {
    let body = message.body.to_value();
    let about = about(message, facts);
    let keys = body.as_object().into_iter().flatten();
    let keys = keys.map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| is_variable(key));
    let mut variables: Vec<_> = keys.collect();
    if let Some((key, _)) = variables.iter().find(|(key, _)| is_reserved(key)) {
        return Err(VariablesError::Reserved { key: (*key).to_owned() });
    }
    variables.extend([("msg", &body), ("loopabull", &about)]);
    write_file(variables)
}

/// Returns the value of the variable `loopabull`: the parts of the message except the body, and the facts
/// about the run.
fn about(message: &Message, facts: RunFacts<'_>) -> Value {
    let mut about = Map::new();
    let mut set = |key: &str, value: Value| about.insert(key.to_owned(), value);
    set("id", message.id.as_str().into());
    set("topic", message.topic.as_str().into());
    set("sent_at", message.sent_at.into());
    set("signer", message.signer.clone().into());
    set("headers", message.headers.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect());
    set("run_id", facts.run_id.into());
    set("attempt", facts.attempt.into());
    Value::Object(about)
}

fn write_file<'a>(
    variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Result<String, VariablesError> {
    let mut text = String::from("---\n");
    for (name, value) in variables {
        yaml::write_string(&mut text, name);
        text.push_str(": ");
        yaml::write_value(&mut text, value)?;
        text.push('\n');
    }
    Ok(text)
}

/// Returns whether a name is a valid variable name (Ansible documentation, "Creating valid variable
/// names").
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= MAX_KEY
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_word)
}

/// Returns whether a variable with this name changes how Ansible connects, becomes another user or finds
/// files. This is so for names with a prefix that Ansible reserves, and for the special variables in
/// Ansible's documentation.
fn is_reserved(name: &str) -> bool {
    const SPECIAL: &[&str] = &[
        "become",
        "become_exe",
        "become_flags",
        "become_method",
        "become_user",
        "connection",
        "delegated_vars",
        "dependent_role_names",
        "environment",
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "loopabull",
        "module_defaults",
        "msg",
        "omit",
        "play_hosts",
        "playbook_dir",
        "port",
        "remote_user",
        "role_name",
        "role_names",
        "role_path",
        "vars",
    ];
    const PREFIXES: &[&str] = &["ansible_", "_ansible", "discovered_interpreter_"];
    SPECIAL.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use loopabull_fedmsg::{Envelope, Verifier};

    use super::*;

    fn written(msg: &str) -> Result<String, VariablesError> {
        let body = format!(r#"{{"msg_id":"m-1","msg":{msg}}}"#);
        let envelope = Envelope::parse(&[b"a.b", body.as_bytes()], 2).unwrap();
        let message = Verifier::Off.verify(envelope, 0);
        let facts = RunFacts { run_id: "r-1", attempt: 2 };
        write(&message.unwrap(), facts)
    }

    fn check(msg: &str, expected: &str) {
        let text = written(msg).unwrap();
        assert_eq!(text.lines().nth(1).unwrap(), format!("\"msg\": {expected}"));
    }

    #[test]
    fn every_string_and_every_key_is_marked_unsafe() {
        check(
            r#"{"a":"{{ x }}","{{ k }}":["y",{"b":"z"}]}"#,
            r#"{? !unsafe "a" : !unsafe "{{ x }}", ? !unsafe "{{ k }}" : [!unsafe "y", {? !unsafe "b" : !unsafe "z"}]}"#,
        );
    }

    #[test]
    fn a_string_that_reads_as_another_type_without_quotes_is_not_marked() {
        for text in [
            "", "~", "=", "<<", "null", "Yes", "OFF", "5", "-0x1F", ".inf", "1:30", "1_0", "*",
            "5\n", "no\n",
        ] {
            let json = format!("{text:?}");
            check(&json, &json.replace("\\n", "\\x0a"));
        }
        check(r#""2001-12-14 21:59:43.10 -5""#, r#""2001-12-14 21:59:43.10 -5""#);
        for text in [
            "5 {{ x }}",
            "y",
            "nope",
            " ",
            "a=",
            "1{",
            "-#",
            "0 or msg",
            "+hostvars",
            "5 in x",
            "0xg",
        ] {
            let json = format!("{text:?}");
            check(&json, &["!unsafe ", &json].concat());
        }
    }

    #[test]
    fn the_file_is_yaml_with_two_variables() {
        let text = written("null").unwrap();
        let keys: Vec<&str> = text.lines().map(|l| l.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["---", "\"msg\"", "\"loopabull\""]);
    }

    #[test]
    fn top_level_variables_are_checked_for_reserved_names() {
        let written = |msg: &str| {
            let body = format!(r#"{{"msg_id":"m-1","msg":{msg}}}"#);
            let envelope = Envelope::parse(&[b"a.b", body.as_bytes()], 2).unwrap();
            let message = Verifier::Off.verify(envelope, 0).unwrap();
            write_top_level(&message, RunFacts { run_id: "r-1", attempt: 1 })
        };
        let text = written(r#"{"branch":"{{ x }}","not a name":1}"#).unwrap();
        let keys: Vec<&str> = text.lines().skip(1).map(|l| l.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["\"branch\"", "\"msg\"", "\"loopabull\""]);
        assert!(text.contains("\"branch\": !unsafe \"{{ x }}\""));
        for key in ["ansible_ssh_common_args", "ansible_python_interpreter", "hostvars", "msg"] {
            let error = written(&format!(r#"{{"{key}":"x"}}"#)).unwrap_err();
            assert_eq!(error, VariablesError::Reserved { key: key.to_owned() });
        }
        assert!(written("[1]").unwrap().starts_with("---\n\"msg\""));
    }

    #[test]
    fn numbers_are_written_as_numbers_of_yaml_1_1() {
        check("123456789012345678901234567890", "123456789012345678901234567890");
        check("[0,-1,-0,1.5,1e5,1E+5,1.25e-7]", "[0, -1, -0, 1.5, 1.0e+5, 1.0e+5, 1.25e-7]");
        let large = VariablesError::NumberTooLarge { digits: "1e+400".into() };
        assert_eq!(written("[1e400]"), Err(large));
        let long = "1".repeat(4200);
        assert_eq!(written(&long), Err(VariablesError::NumberTooLong { length: 4200, max: 4000 }));
    }

    #[test]
    fn strings_are_written_with_ascii_escapes() {
        check(
            r#""q\"b\\n\n\u0000\u007fé€😀""#,
            r#"!unsafe "q\"b\\n\x0a\x00\x7f\xe9\u20ac\U0001f600""#,
        );
    }

    #[test]
    fn a_key_too_long_for_yaml_is_refused() {
        let key = "k".repeat(1001);
        let error = written(&format!(r#"{{"{key}":1}}"#)).unwrap_err();
        assert_eq!(error, VariablesError::KeyTooLong { length: 1001, max: 1000 });
    }
}
