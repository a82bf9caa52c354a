//! Writes YAML for Ansible, in which each string that could be a template has the tag `!unsafe`.
//!
//! Ansible 2.14 to 2.21 evaluates Jinja templates in the strings of extra variables. A string with the tag
//! `!unsafe` is not evaluated. Before Ansible 2.19, a mapping with the tag loses its data, so each string
//! gets its own tag. Keys get the tag too, because a play can loop over keys and use them as values.
//!
//! Since Ansible 2.19 a string with the tag is read as if it had no quotes: `!unsafe "5"` is a number, and
//! `!unsafe "="` is an error (ansible-core, `_internal/_yaml/_constructor.py`). Strings that would change
//! their type in this way are written without the tag. These strings are numbers, times and a few words, and
//! none of them can be a template.
//!
//! The file starts with `---`, so that Ansible reads it as YAML and not as JSON. In JSON, `__ansible_vault`
//! and `__ansible_unsafe` would be special keys. All characters outside ASCII are written as escapes.

use std::fmt::Write;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Number, Value};

use crate::error::VariablesError;

/// The maximum length of a key, in characters. YAML 1.1 allows 1024 characters in a key without `?`.
pub(crate) const MAX_KEY: usize = 1000;
/// The maximum number of digits of a number. Python refuses to parse integers with more than 4300 digits.
const MAX_DIGITS: usize = 4000;

/// Writes a value on one line.
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
                // An escape has up to ten characters, so a key could exceed the 1024 characters that YAML
                // allows without `?`. Keys are therefore written with `?`.
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

/// Matches texts that YAML 1.1 does not read as strings if they have no quotes. The patterns come from
/// PyYAML's `resolver.py`, and ignore a line feed at the end of the text.
static NO_STRING: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        // Null, the special keys `<<` and `=`, and indicators that are an error without further text.
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
    Regex::new(&format!(r"^(?:{})\n?$", patterns.join("|")))
        .expect("the patterns are constant and valid")
});

/// Writes a number with all its digits. In YAML 1.1 a float needs a dot, and its exponent needs a sign, so
/// `1e5` is written as `1.0e+5`.
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

/// Writes a string of a message. The string gets the tag `!unsafe`, unless the tag would change its type.
fn write_marked(text: &mut String, string: &str) {
    text.push_str(if NO_STRING.is_match(string) { "" } else { "!unsafe " });
    write_string(text, string);
}

/// Writes a string in double quotes, with characters outside printable ASCII as escapes.
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
        written.expect("writing to a string cannot fail");
    }
    text.push('"');
}
