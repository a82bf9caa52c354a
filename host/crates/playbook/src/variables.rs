//! How a message reaches Ansible: two variables in a YAML file, every string marked `!unsafe` that could
//! be a template.
//!
//! Ansible takes strings in extra variables for templates and runs the Jinja in them, in every
//! version from 2.14 to 2.21 that was tried; `!unsafe` on each single scalar is the one form that
//! all of them respect, and on a mapping it loses the data before 2.19. Keys are marked too: a play that
//! loops over them makes values of them.
//! Since 2.19 a marked scalar is read as if it had no quotes, so that `!unsafe "5"` is a number and
//! `!unsafe "="` an error (ansible-core, `_internal/_yaml/_constructor.py`). What it would take for
//! something else than a string is left unmarked: those are numbers, times and a few words, and neither a
//! template nor an expression that knows a name.
//! Nothing of a message stands at the top level, where it could set a connection or override a
//! variable of the play.
//!
//! The file is YAML and never JSON (it starts with `---`), so that `__ansible_vault` and
//! `__ansible_unsafe` stay plain keys. It is pure ASCII: whatever is not printable ASCII is an
//! escape of YAML 1.1.

use std::fmt::Write;
use std::sync::LazyLock;

use loopabull_model::Message;
use regex::Regex;
use serde_json::{Map, Number, Value};

/// YAML 1.1 allows longer keys only in another form, and nobody has them.
const MAX_KEY: usize = 1000;
/// Python refuses to read integers with more than 4300 digits.
const MAX_DIGITS: usize = 4000;

/// Facts of the run that stand beside the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFacts<'a> {
    pub run_id: &'a str,
    pub attempt: u32,
}

/// Why a message cannot be given to a playbook.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum UnwritableError {
    #[error("a key of the message has {length} characters, playbooks take {MAX_KEY}")]
    KeyTooLong { length: usize },
    #[error("a number of the message has {length} digits, playbooks take {MAX_DIGITS}")]
    NumberTooLong { length: usize },
    #[error("a number of the message is too large for a float: {digits}")]
    NumberTooLarge { digits: String },
    #[error("the key `{key}` of the body must not be a variable: Ansible has a meaning for it")]
    Reserved { key: String },
}

/// Returns the text of the variables file: `msg`, the body, and `loopabull`, all about the message.
pub(crate) fn write(message: &Message, facts: RunFacts<'_>) -> Result<String, UnwritableError> {
    let body = message.body.to_value();
    write_file([("msg", &body), ("loopabull", &about(message, facts))])
}

/// The same with the keys of the body as variables too, as the first loopers had it. Whoever sends a
/// message then names variables of the play, so what Ansible itself gives a meaning is refused. Keys
/// that cannot be variables are only in `msg`.
pub(crate) fn write_top_level(
    message: &Message,
    facts: RunFacts<'_>,
) -> Result<String, UnwritableError> {
    let body = message.body.to_value();
    let about = about(message, facts);
    let keys = body.as_object().into_iter().flatten();
    let keys = keys.map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| is_variable(key));
    let mut variables: Vec<_> = keys.collect();
    if let Some((key, _)) = variables.iter().find(|(key, _)| is_reserved(key)) {
        return Err(UnwritableError::Reserved { key: (*key).to_owned() });
    }
    variables.extend([("msg", &body), ("loopabull", &about)]);
    write_file(variables)
}

/// Returns what is known about a message beside its body.
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
) -> Result<String, UnwritableError> {
    let mut text = String::from("---\n");
    for (name, value) in variables {
        write_string(&mut text, name);
        text.push_str(": ");
        write_value(&mut text, value)?;
        text.push('\n');
    }
    Ok(text)
}

/// Tells whether Ansible takes a name for one of a variable (its documentation, "Creating valid
/// variable names").
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= MAX_KEY
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_word)
}

/// Tells whether a variable of this name changes how Ansible connects, becomes another user or finds
/// its way: all that begins with `ansible_`, and the special variables of its documentation.
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
    const BEGINNINGS: &[&str] = &["ansible_", "_ansible", "discovered_interpreter_"];
    SPECIAL.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

fn write_value(text: &mut String, value: &Value) -> Result<(), UnwritableError> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number)?,
        Value::String(string) => {
            write_marked(text, string);
        }
        Value::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_value(text, value)?;
            }
            text.push(']');
        }
        Value::Object(map) => {
            text.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                let length = key.chars().count();
                if length > MAX_KEY {
                    return Err(UnwritableError::KeyTooLong { length });
                }
                // The explicit form: an implicit key may not be longer than 1024 characters, and
                // its escapes can be ten times as long as the key.
                text.push_str("? ");
                write_marked(text, key);
                text.push_str(" : ");
                write_value(text, value)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

/// What YAML 1.1 takes for something else than a string where it has no quotes: the patterns of PyYAML,
/// `resolver.py`, and a line feed at the end, which they take for none.
static NO_STRING: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        // Nothing, keys with a meaning, and what nobody may write.
        r"~|null|Null|NULL||<<|=|[!&*]",
        "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        r"[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
        concat!(
            r"[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}",
            r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?",
        ),
    ];
    Regex::new(&format!(r"^(?:{})\n?$", patterns.join("|"))).expect("the patterns are fixed")
});

/// Writes a number with its digits. YAML 1.1 takes `1e5` for a string: a float needs a dot, and its
/// exponent a sign.
fn write_number(text: &mut String, number: &Number) -> Result<(), UnwritableError> {
    let digits = number.as_str();
    if digits.len() > MAX_DIGITS {
        return Err(UnwritableError::NumberTooLong { length: digits.len() });
    }
    if digits.contains(['.', 'e', 'E']) && !digits.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(UnwritableError::NumberTooLarge { digits: digits.to_owned() });
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    text.push_str(mantissa);
    if let Some(exponent) = exponent {
        text.push_str(if mantissa.contains('.') { "e" } else { ".0e" });
        text.push_str(if exponent.starts_with(['+', '-']) { "" } else { "+" });
        text.push_str(exponent);
    }
    Ok(())
}

/// Writes a string of a message, marked unless it could be no string then.
fn write_marked(text: &mut String, string: &str) {
    text.push_str(if NO_STRING.is_match(string) { "" } else { "!unsafe " });
    write_string(text, string);
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        let code = u32::from(character);
        let written = match character {
            '"' | '\\' => write!(text, "\\{character}"),
            ' '..='~' => {
                text.push(character);
                Ok(())
            }
            _ if code <= 0xff => write!(text, "\\x{code:02x}"),
            _ if code <= 0xffff => write!(text, "\\u{code:04x}"),
            _ => write!(text, "\\U{code:08x}"),
        };
        written.expect("a string takes everything");
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use loopabull_fedmsg::{Envelope, Verifier};

    use super::*;

    fn written(msg: &str) -> Result<String, UnwritableError> {
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
    fn every_string_is_unsafe_and_so_is_every_key() {
        check(
            r#"{"a":"{{ x }}","{{ k }}":["y",{"b":"z"}]}"#,
            r#"{? !unsafe "a" : !unsafe "{{ x }}", ? !unsafe "{{ k }}" : [!unsafe "y", {? !unsafe "b" : !unsafe "z"}]}"#,
        );
    }

    #[test]
    fn what_could_be_no_string_without_quotes_is_not_marked() {
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
    fn top_level_variables_are_asked_for_and_checked() {
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
            assert_eq!(error, UnwritableError::Reserved { key: key.to_owned() });
        }
        assert!(written("[1]").unwrap().starts_with("---\n\"msg\""));
    }

    #[test]
    fn numbers_are_numbers_of_yaml_1_1() {
        check("123456789012345678901234567890", "123456789012345678901234567890");
        check("[0,-1,-0,1.5,1e5,1E+5,1.25e-7]", "[0, -1, -0, 1.5, 1.0e+5, 1.0e+5, 1.25e-7]");
        let large = UnwritableError::NumberTooLarge { digits: "1e+400".into() };
        assert_eq!(written("[1e400]"), Err(large));
        let long = "1".repeat(4200);
        assert_eq!(written(&long), Err(UnwritableError::NumberTooLong { length: 4200 }));
    }

    #[test]
    fn strings_are_ascii_escapes() {
        check(
            r#""q\"b\\n\n\u0000\u007fé€😀""#,
            r#"!unsafe "q\"b\\n\x0a\x00\x7f\xe9\u20ac\U0001f600""#,
        );
    }

    #[test]
    fn a_key_too_long_for_yaml_is_refused() {
        let key = "k".repeat(1001);
        let error = written(&format!(r#"{{"{key}":1}}"#)).unwrap_err();
        assert_eq!(error, UnwritableError::KeyTooLong { length: 1001 });
    }
}
