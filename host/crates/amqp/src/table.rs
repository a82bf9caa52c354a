//! AMQP field values: their conversion to text, and from the arguments in a configuration file.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Number of levels of a nested value that are converted to text. Deeper levels become `…`.
const MAX_DEPTH: u32 = 16;

/// An argument of a queue or a binding, as it is written in a configuration file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged, expecting = "expected text, an integer, true, false, a list or a table")]
pub enum Argument {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<Argument>),
    Table(BTreeMap<String, Argument>),
}

/// Returns a string, an integer or a boolean as text. Returns `None` for a value of another type.
fn scalar_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongLongInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongUInt(_) => Some(integer(value).to_string()),
        _ => None,
    }
}

/// Returns any value as text. Strings, integers and booleans are plain text, a timestamp is its seconds since
/// 1970, and bytes are their UTF-8 text, or hexadecimal digits if they are not UTF-8. All other values are JSON, with the
/// same forms inside.
pub fn text(value: &AMQPValue) -> String {
    match scalar_text(value) {
        Some(text) => text,
        None => match json(value, 0) {
            Value::String(text) => text,
            value => value.to_string(),
        },
    }
}

/// Returns the number in an integer value, and 0 for a value of another type.
pub fn integer(value: &AMQPValue) -> i64 {
    match value {
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongLongInt(number) => *number,
        _ => 0,
    }
}

/// Returns the size of a table on the wire, in bytes, without the four bytes of its length (AMQP 0-9-1,
/// section 4.2.5.5, with the types of RabbitMQ's errata).
pub fn table_size(table: &FieldTable) -> usize {
    // The length of a name takes one byte.
    table.inner().iter().map(|(name, value)| 1 + name.as_str().len() + value_size(value)).sum()
}

/// Returns the size of a value on the wire, in bytes, with the byte of its type.
fn value_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => 4 + table_size(table),
    }
}

/// Converts configured arguments to an AMQP table. Returns an error if a name is too long for AMQP.
pub fn table_from_arguments<'a>(
    arguments: impl IntoIterator<Item = (&'a String, &'a Argument)>,
) -> Result<FieldTable, String> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let short = ShortString::try_new(name.as_str());
        let short = short.map_err(|error| format!("argument `{name}`: {error}"))?;
        table.insert(short, amqp_value(value)?);
    }
    Ok(table)
}

/// Converts an argument to the AMQP type that pika would send, because a broker compares the types of
/// arguments.
fn amqp_value(value: &Argument) -> Result<AMQPValue, String> {
    Ok(match value {
        Argument::Boolean(value) => AMQPValue::Boolean(*value),
        Argument::Integer(number) => match i32::try_from(*number) {
            Ok(number) => AMQPValue::LongInt(number),
            Err(_) => AMQPValue::LongLongInt(*number),
        },
        Argument::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
        Argument::List(list) => {
            let values: Vec<AMQPValue> = list.iter().map(amqp_value).collect::<Result<_, _>>()?;
            AMQPValue::FieldArray(values.into())
        }
        Argument::Table(inner) => AMQPValue::FieldTable(table_from_arguments(inner)?),
    })
}

fn json(value: &AMQPValue, depth: u32) -> Value {
    if depth > MAX_DEPTH {
        return Value::String("…".to_owned());
    }
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::Float(number) => f64::from(*number).into(),
        AMQPValue::Double(number) => (*number).into(),
        AMQPValue::DecimalValue(number) => {
            Value::String(format!("{}e-{}", number.value, number.scale))
        }
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => text.to_string().into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::ByteArray(bytes) => match str::from_utf8(bytes.as_slice()) {
            Ok(text) => text.into(),
            Err(_) => hex::encode(bytes.as_slice()).into(),
        },
        AMQPValue::Void => Value::Null,
        AMQPValue::FieldArray(array) => {
            array.as_slice().iter().map(|value| json(value, depth + 1)).collect()
        }
        AMQPValue::FieldTable(table) => {
            let pair = |(name, value): (&ShortString, &AMQPValue)| {
                (name.to_string(), json(value, depth + 1))
            };
            Value::Object(table.inner().iter().map(pair).collect::<Map<_, _>>())
        }
        number => integer(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: AMQPValue, expected: &str) {
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn scalars_are_plain_text_and_other_values_are_json() {
        check(AMQPValue::LongString("a \"b\"".into()), "a \"b\"");
        check(AMQPValue::Boolean(true), "true");
        check(AMQPValue::LongInt(-7), "-7");
        check(AMQPValue::ShortShortUInt(200), "200");
        check(AMQPValue::ShortUInt(60_000), "60000");
        check(AMQPValue::Timestamp(7), "7");
        check(AMQPValue::Double(1.5), "1.5");
        check(AMQPValue::Void, "null");
        check(AMQPValue::ByteArray(b"ab".to_vec().into()), "ab");
        check(AMQPValue::ByteArray(vec![0xff, 0xfe].into()), "fffe");
        let mut inner = FieldTable::default();
        inner.insert("k".into(), AMQPValue::LongString("v".into()));
        let list = vec![AMQPValue::FieldTable(inner), AMQPValue::LongLongInt(i64::MAX)];
        check(AMQPValue::FieldArray(list.into()), r#"[{"k":"v"},9223372036854775807]"#);
    }

    #[test]
    fn the_size_of_a_table_is_that_of_its_bytes() {
        let mut inner = FieldTable::default();
        inner.insert("k".into(), AMQPValue::LongString("vv".into()));
        let list = vec![AMQPValue::FieldTable(inner), AMQPValue::LongLongInt(1)];
        let mut table = FieldTable::default();
        table.insert("name".into(), AMQPValue::FieldArray(list.into()));
        table.insert("b".into(), AMQPValue::Boolean(true));
        table.insert("v".into(), AMQPValue::Void);
        // In the inner table: 1 + 1 for the name, 1 + 4 + 2 for the text.
        let list = 1 + 4 + (1 + 4 + 2 + 7) + (1 + 8);
        assert_eq!(table_size(&table), (1 + 4 + list) + (1 + 1 + 1 + 1) + (1 + 1 + 1));
    }

    #[test]
    fn levels_below_the_depth_limit_are_omitted() {
        let mut value = AMQPValue::Void;
        for _ in 0..100 {
            value = AMQPValue::FieldArray(vec![value].into());
        }
        assert!(text(&value).ends_with("[\"…\"]]]]]]]]]]]]]]]]]"));
    }

    #[test]
    fn arguments_have_the_types_that_pika_would_send() {
        let list = Argument::List(vec![Argument::Integer(1), Argument::Integer(1 << 40)]);
        let table = table_from_arguments([(&"k".to_owned(), &list)]).unwrap();
        let expected = vec![AMQPValue::LongInt(1), AMQPValue::LongLongInt(1 << 40)];
        assert_eq!(table.inner()["k"], AMQPValue::FieldArray(expected.into()));
    }
}
