//! Reads JSON as Python's `json.loads` does, with its leniencies.

use std::borrow::Cow;

use loopabull_model::MAX_DEPTH;

use super::value::order;
use super::{JsonError, Member, Text, Value, string};

/// How many values of real messages are open at once, about.
const USUAL: usize = 32;

/// Reads one text.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    depth: usize,
    is_odd: bool,
    /// What was read of the arrays and objects that are not at their end, the outer ones first. So
    /// each of them is allocated once, as large as it is.
    values: Vec<Value<'a>>,
    members: Vec<Member<'a>>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            is_odd: false,
            values: Vec::with_capacity(USUAL),
            members: Vec::with_capacity(USUAL),
        }
    }

    /// Reads the one value of the text, and tells whether it is odd.
    pub(super) fn document(mut self) -> Result<(Value<'a>, bool), JsonError> {
        self.space();
        let root = self.value()?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.syntax("there is more than one value"));
        }
        Ok((root, self.is_odd))
    }

    fn syntax(&self, problem: &'static str) -> JsonError {
        JsonError::Syntax { problem, at: self.at }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads a value. It calls itself, as often as the limit of the depth lets it.
    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.name(),
        }
    }

    pub(super) fn name(&mut self) -> Result<Value<'a>, JsonError> {
        let (name, value) = match self.peek() {
            Some(b'n') => ("null", Value::Null),
            Some(b't') => ("true", Value::Bool(true)),
            Some(b'f') => ("false", Value::Bool(false)),
            Some(b'N') => ("NaN", Value::Float(f64::NAN)),
            Some(b'I') => ("Infinity", Value::Float(f64::INFINITY)),
            _ => ("-Infinity", Value::Float(f64::NEG_INFINITY)),
        };
        if !self.rest().starts_with(name.as_bytes()) {
            return Err(self.syntax("a value is missing"));
        }
        self.at += name.len();
        self.is_odd |= matches!(value, Value::Float(_));
        Ok(value)
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.space();
        Ok(())
    }

    /// Reads what comes after a member: `true` for a comma, `false` for the end.
    fn goes_on(&mut self, end: u8) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.leave();
                Ok(false)
            }
            _ => Err(self.syntax("a comma or the end is missing")),
        }
    }

    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    fn array(&mut self) -> Result<Value<'a>, JsonError> {
        self.enter()?;
        if self.peek() == Some(b']') {
            self.leave();
            return Ok(Value::Array(Vec::new()));
        }
        let outer = self.values.len();
        loop {
            let value = self.value()?;
            self.values.push(value);
            if !self.goes_on(b']')? {
                return Ok(Value::Array(self.values.split_off(outer)));
            }
        }
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        self.enter()?;
        if self.peek() == Some(b'}') {
            self.leave();
            return Ok(Value::Object(Vec::new()));
        }
        let outer = self.members.len();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a key is missing"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.syntax("a colon is missing"));
            }
            self.at += 1;
            self.space();
            let start = self.at;
            let value = self.value()?;
            self.members.push(Member { key, value, span: start..self.at, is_repeated: false });
            if !self.goes_on(b'}')? {
                let mut members = self.members.split_off(outer);
                order(&mut members);
                return Ok(Value::Object(members));
            }
        }
    }

    fn string(&mut self) -> Result<Text<'a>, JsonError> {
        self.at += 1;
        let rest = self.rest();
        let plain = string::plain_length(rest);
        // serde_json's reserved keys start so; whoever asks serde_json looks closer.
        self.is_odd |= rest.first() == Some(&b'$');
        if rest.get(plain) == Some(&b'"') {
            self.at += plain + 1;
            return Ok(Text::plain(&rest[..plain]));
        }
        let text = self.other_string(plain)?;
        self.is_odd |= text.as_bytes().first() == Some(&b'$');
        Ok(text)
    }

    /// Reads a string of which only the first `plain` bytes are known to need no change.
    fn other_string(&mut self, plain: usize) -> Result<Text<'a>, JsonError> {
        let start = self.at;
        self.at += plain;
        let mut decoded = Vec::new();
        // From here on nothing was copied yet.
        let mut from = start;
        loop {
            let run = self.rest().iter().take_while(|&&byte| is_literal(byte)).count();
            self.at += run;
            match self.peek() {
                Some(b'"') => {
                    let last = &self.text.as_bytes()[from..self.at];
                    self.at += 1;
                    if decoded.is_empty() {
                        return Ok(Text::other(Cow::Borrowed(last)));
                    }
                    decoded.extend_from_slice(last);
                    return Ok(Text::other(Cow::Owned(decoded)));
                }
                Some(b'\\') => {
                    if decoded.is_empty() {
                        decoded.reserve(self.at - start + 64);
                    }
                    decoded.extend_from_slice(&self.text.as_bytes()[from..self.at]);
                    self.escape(&mut decoded)?;
                    from = self.at;
                }
                Some(_) => return Err(self.syntax("a string has a control character")),
                None => return Err(self.syntax("a string has no end")),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Some(&letter) = self.rest().get(1) else {
            return Err(self.syntax("a string has no end"));
        };
        let byte = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.escaped_code_point(out),
            _ => return Err(self.syntax("an escape is unknown")),
        };
        self.at += 2;
        out.push(byte);
        Ok(())
    }

    fn escaped_code_point(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let unit = self.unit()?;
        if (0xd800..0xdc00).contains(&unit) && self.rest().starts_with(b"\\u") {
            let before = self.at;
            let next = self.unit()?;
            if (0xdc00..0xe000).contains(&next) {
                string::push(0x1_0000 + ((unit - 0xd800) << 10) + (next - 0xdc00), out);
                return Ok(());
            }
            // It stands for itself, and may be the first half of a pair.
            self.at = before;
        }
        self.is_odd |= (0xd800..0xe000).contains(&unit);
        string::push(unit, out);
        Ok(())
    }

    /// Reads `\uXXXX`.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().get(2..6).unwrap_or_default();
        if digits.len() != 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.syntax("an escape needs four hexadecimal digits"));
        }
        let value = |digit: &u8| char::from(*digit).to_digit(16).expect("all are digits");
        self.at += 6;
        Ok(digits.iter().fold(0, |unit, digit| unit << 4 | value(digit)))
    }
}

/// Tells whether a byte in a string stands for itself.
fn is_literal(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use crate::canonical::Document;

    fn check_odd(text: &str, expected: bool) {
        assert_eq!(Document::parse(text).unwrap().is_odd, expected, "{text}");
    }

    #[test]
    fn what_serde_json_may_not_get_is_odd() {
        check_odd(r#"{"a":["b",1,null]}"#, false);
        check_odd("[NaN]", true);
        check_odd("-Infinity", true);
        check_odd(r#""\ud800""#, true);
        check_odd(r#""\ud83d\ude00""#, false);
        check_odd(r#"{"$serde":1}"#, true);
        check_odd(r#"{"\u0024serde":1}"#, true);
    }

    #[test]
    fn a_value_knows_where_it_stands() {
        let text = r#" {"b" : [1, 2] ,"a":"x","b":3}"#;
        let document = Document::parse(text).unwrap();
        let members = document.members().unwrap();
        let found: Vec<_> =
            members.iter().map(|m| (&text[m.span.clone()], m.is_repeated)).collect();
        assert_eq!(found, [("\"x\"", false), ("3", true)]);
    }
}
