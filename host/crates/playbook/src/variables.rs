//! The variables of a playbook: a YAML file with the message, for `--extra-vars` of Ansible.
//!
//! This module decides which variables a playbook gets. By default the body is only in the variable `msg`. A
//! key of the body becomes a variable of its own only if the manifest names it.

use loopabull_model::{Message, VariableName, Variables};
use serde_json::{Map, Value};

use crate::error::VariablesError;
use crate::yaml;

/// The facts about the run that the variables contain in addition to the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFacts<'a> {
    pub run_id: &'a str,
    pub attempt: u32,
}

/// Returns the text of the variables file. The variable `msg` is the body of the message. The variable
/// `loopabull` contains its other parts and the facts about the run. Each key in `keys` that the body has is
/// a variable too.
///
/// # Errors
///
/// Fails if a key or a number in the message is too large for Ansible.
pub(crate) fn write(
    message: &Message,
    keys: &Variables,
    facts: RunFacts<'_>,
) -> Result<String, VariablesError> {
    let body = message.body.to_value();
    let keys = keys.names().iter().map(VariableName::as_str);
    let named = keys.filter_map(|key| Some((key, body.get(key)?)));
    write_file([("msg", &body), ("loopabull", &about(message, facts))].into_iter().chain(named))
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

#[cfg(test)]
mod tests {
    use loopabull_fedmsg::{Envelope, Verifier};

    use super::*;

    fn written_with(keys: &str, msg: &str) -> Result<String, VariablesError> {
        let body = format!(r#"{{"msg_id":"m-1","msg":{msg}}}"#);
        let envelope = Envelope::parse(&[b"a.b", body.as_bytes()], 2).unwrap();
        let message = Verifier::Off.verify(envelope, 0);
        let facts = RunFacts { run_id: "r-1", attempt: 2 };
        write(&message.unwrap(), &serde_json::from_str(keys).unwrap(), facts)
    }

    fn written(msg: &str) -> Result<String, VariablesError> {
        written_with("[]", msg)
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
    fn only_keys_that_the_manifest_names_become_variables() {
        let text = written_with(
            r#"["branch", "commit"]"#,
            r#"{"branch":"{{ x }}","lookup":"x","sops_binary":"/usr/bin/env","ansible_host":"x","not a name":1}"#,
        );
        let text = text.unwrap();
        let keys: Vec<&str> = text.lines().skip(1).map(|l| l.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["\"msg\"", "\"loopabull\"", "\"branch\""]);
        assert!(text.ends_with("\"branch\": !unsafe \"{{ x }}\"\n"), "{text}");
        assert_eq!(written_with(r#"["branch"]"#, "[1]"), written("[1]"));
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
