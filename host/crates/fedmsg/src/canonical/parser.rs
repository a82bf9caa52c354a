//! Reads JSON as Python's `json.loads` does, with its leniencies, and writes it as `json.dumps` does.
//!
//! Both in one pass, without a tree: a value is written while it is read. Only the order of members has
//! to wait: it is noted where they stand, for [`Document`] to move them.

use loopabull_model::MAX_DEPTH;

use super::document::Unordered;
use super::member::{is_ordered, order};
use super::output::Output;
use super::{Document, JsonError, Member};

/// How many members of real messages are open at once, about.
const USUAL: usize = 32;

/// Reads one text.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) out: Output<'a>,
    pub(super) is_odd: bool,
    depth: usize,
    /// The members of the objects that are not at their end, those of the outer ones first.
    members: Vec<Member<'a>>,
    unordered: Vec<Unordered>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            out: Output::new(text),
            is_odd: false,
            depth: 0,
            members: Vec::with_capacity(USUAL),
            unordered: Vec::new(),
        }
    }

    /// Reads the one value of the text.
    pub(super) fn document(mut self) -> Result<Document<'a>, JsonError> {
        self.space();
        self.value()?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.syntax("there is more than one value"));
        }
        // An object ends after those in it.
        self.unordered.sort_by_key(|object| object.written.start);
        Ok(Document {
            out: self.out.finish(),
            members: self.members,
            unordered: self.unordered,
            is_odd: self.is_odd,
        })
    }

    pub(super) fn syntax(&self, problem: &'static str) -> JsonError {
        JsonError::Syntax { problem, at: self.at }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Passes over space, which is not written.
    fn space(&mut self) {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        if self.at > start {
            self.out.leave_out(start, self.at);
        }
    }

    /// Reads a value. It calls itself, as often as the limit of the depth lets it.
    fn value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.name(),
        }
    }

    pub(super) fn name(&mut self) -> Result<(), JsonError> {
        let (name, is_number) = match self.peek() {
            Some(b'n') => ("null", false),
            Some(b't') => ("true", false),
            Some(b'f') => ("false", false),
            Some(b'N') => ("NaN", true),
            Some(b'I') => ("Infinity", true),
            _ => ("-Infinity", true),
        };
        if !self.rest().starts_with(name.as_bytes()) {
            return Err(self.syntax("a value is missing"));
        }
        self.at += name.len();
        self.is_odd |= is_number;
        Ok(())
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

    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Reads what comes after a member: `true` for a comma, `false` for the end, which is left.
    fn goes_on(&mut self, end: u8) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == end => Ok(false),
            _ => Err(self.syntax("a comma or the end is missing")),
        }
    }

    fn array(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        if self.peek() != Some(b']') {
            self.value()?;
            while self.goes_on(b']')? {
                self.value()?;
            }
        }
        self.leave();
        Ok(())
    }

    fn object(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        let outer = self.members.len();
        if self.peek() != Some(b'}') {
            self.member()?;
            while self.goes_on(b'}')? {
                self.member()?;
            }
        }
        if !is_ordered(&self.members[outer..]) {
            self.order(outer);
        }
        // Those of the outermost object are the document's.
        if self.depth > 1 {
            self.members.truncate(outer);
        }
        self.leave();
        Ok(())
    }

    fn member(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a key is missing"));
        }
        let start = self.out.length(self.at);
        let key = self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax("a colon is missing"));
        }
        self.at += 1;
        self.space();
        let (begin, value) = (self.at, self.out.length(self.at));
        self.value()?;
        self.members.push(Member {
            key,
            span: begin..self.at,
            written: start..self.out.length(self.at),
            value,
            is_repeated: false,
        });
        Ok(())
    }

    /// Puts the members of an object, those from `outer` on, into order.
    fn order(&mut self, outer: usize) {
        let mut members = self.members.split_off(outer);
        let start = members[0].written.start - "{".len();
        order(&mut members);
        if self.depth > 1 {
            let written = start..self.out.length(self.at);
            let members = members.into_iter().map(|member| member.written).collect();
            self.unordered.push(Unordered { written, members });
        } else {
            self.members = members;
        }
    }
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
