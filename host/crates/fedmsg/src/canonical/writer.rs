//! Writes a value as Python's `json.dumps` does without spaces.

use super::float;
use super::{Member, Value};

/// Appends a value in canonical form. As deep as the parser let it be.
pub(super) fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Integer(digits) => out.extend_from_slice(digits.as_bytes()),
        Value::Float(number) => float::write(*number, out),
        Value::Text(text) => text.write(out),
        Value::Array(values) => {
            out.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(value, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (index, Member { key, value, .. }) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                key.write(out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
    }
}
