//! YAML for Ansible, with each string that could be a template marked `!unsafe`.
//!
//! Ansible takes strings in extra variables for templates and runs the Jinja in them, in every version
//! from 2.14 to 2.21 that was tried. `!unsafe` on each single scalar is the one form that all of them
//! respect; on a mapping it loses the data before 2.19. Keys are marked too, because a play that loops
//! over them makes values of them.
//! Since 2.19 a marked scalar is read as if it had no quotes, so that `!unsafe "5"` is a number and
//! `!unsafe "="` an error (ansible-core, `_internal/_yaml/_constructor.py`). Strings that would become
//! something else are not marked: they are numbers, times and a few words, and none of them is a template
//! or an expression with a name.
//!
//! The file is YAML and never JSON (it starts with `---`), so that `__ansible_vault` and
//! `__ansible_unsafe` stay plain keys. It is pure ASCII: everything else is an escape of YAML 1.1.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Number, Value};

use crate::error::VariablesError;

/// The maximum length of a key, in characters. YAML 1.1 allows longer ones only in another form.
pub(crate) const MAX_KEY: usize = 1000;
/// The maximum number of digits. Python refuses to parse integers with more than 4300.
const MAX_DIGITS: usize = 4000;

/// Writes a value in one line.
pub(crate) fn write_value(text: &mut String, value: &Value) -> Result<(), VariablesError> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(text, number)?,
        Value::String(string) => write_marked(text, string),
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
                    return Err(VariablesError::KeyTooLong { length, max: MAX_KEY });
                }
                // The explicit form, because an implicit key has a maximum of 1024 characters, and
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

/// Matches texts that are not strings in YAML 1.1 if they have no quotes: the patterns of PyYAML's
/// `resolver.py`, which ignore a line feed at the end.
static NO_STRING: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        // Null, keys with a meaning, and indicators that are not allowed alone.
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

/// Writes a number with all its digits. `1e5` is a string in YAML 1.1: a float needs a dot, and its
/// exponent needs a sign.
fn write_number(text: &mut String, number: &Number) -> Result<(), VariablesError> {
    let digits = number.as_str();
    if digits.len() > MAX_DIGITS {
        return Err(VariablesError::NumberTooLong { length: digits.len(), max: MAX_DIGITS });
    }
    if digits.contains(['.', 'e', 'E']) && !digits.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(VariablesError::NumberTooLarge { digits: digits.to_owned() });
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

/// Writes a string of a message, marked unless the mark would make something else of it.
fn write_marked(text: &mut String, string: &str) {
    text.push_str(if NO_STRING.is_match(string) { "" } else { "!unsafe " });
    write_string(text, string);
}

/// Writes a string in double quotes.
pub(crate) fn write_string(text: &mut String, string: &str) {
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
