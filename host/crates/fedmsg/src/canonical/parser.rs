//! Reads JSON as Python's `json.loads` does, and writes the text as `json.dumps` does.
//!
//! Each value is written while it is read, so no tree of values is built. The members of objects are sorted
//! later: the parser records their byte ranges, and [`Document`] sorts them.

use loopabull_model::MAX_DEPTH;

use super::document::{Document, Unordered};
use super::error::JsonError;
use super::member::{Member, is_ordered, order};
use super::reader::Reader;

/// The number of members for which space is reserved. In most real messages, fewer members are kept at the
/// same time.
const USUAL_MEMBERS: usize = 32;

/// Parses a text to its end.
pub(crate) fn parse(text: &str) -> Result<Document<'_>, JsonError> {
    let mut parser = Parser {
        reader: Reader::new(text),
        depth: 0,
        members: Vec::with_capacity(USUAL_MEMBERS),
        unordered: Vec::new(),
    };
    parser.reader.space();
    parser.value()?;
    parser.reader.space();
    if parser.reader.at < text.len() {
        return Err(parser.reader.syntax("there is more than one value"));
    }
    let Parser { reader, members, mut unordered, .. } = parser;
    // An inner object ends before the outer object that contains it, so the list is not yet in the order of
    // the starts.
    unordered.sort_by_key(|object| object.written.start);
    Ok(Document { out: reader.out.finish(), members, unordered, is_odd: reader.is_odd })
}

/// The state of the parser for one text.
struct Parser<'a> {
    reader: Reader<'a>,
    depth: usize,
    /// Members of all objects that have not ended yet, the members of outer objects first.
    members: Vec<Member<'a>>,
    /// Objects whose members are not in canonical order, in the order in which the objects end.
    unordered: Vec<Unordered>,
}

impl<'a> Parser<'a> {
    /// Reads a value. The recursion is limited by [`MAX_DEPTH`].
    fn value(&mut self) -> Result<(), JsonError> {
        match self.reader.peek() {
            Some(b'"') => self.reader.string().map(drop),
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'-' | b'0'..=b'9') => self.reader.number(),
            _ => self.reader.name(),
        }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.reader.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.reader.space();
        Ok(())
    }

    fn leave(&mut self) {
        self.reader.at += 1;
        self.depth -= 1;
    }

    /// Returns true after it has read the comma between two members. Returns false at the closing bracket,
    /// which is left unread.
    fn goes_on(&mut self, end: u8) -> Result<bool, JsonError> {
        self.reader.space();
        match self.reader.peek() {
            Some(b',') => {
                self.reader.at += 1;
                self.reader.space();
                Ok(true)
            }
            Some(byte) if byte == end => Ok(false),
            _ => Err(self.reader.syntax("a comma or the end is missing")),
        }
    }

    fn array(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        if self.reader.peek() != Some(b']') {
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
        if self.reader.peek() != Some(b'}') {
            self.member()?;
            while self.goes_on(b'}')? {
                self.member()?;
            }
        }
        if !is_ordered(&self.members[outer..]) {
            self.order(outer);
        }
        // The members of the outermost object stay in the list, because `Document` needs them.
        if self.depth > 1 {
            self.members.truncate(outer);
        }
        self.leave();
        Ok(())
    }

    fn member(&mut self) -> Result<(), JsonError> {
        if self.reader.peek() != Some(b'"') {
            return Err(self.reader.syntax("a key is missing"));
        }
        let start = self.reader.out.length(self.reader.at);
        let key = self.reader.string()?;
        self.reader.space();
        if self.reader.peek() != Some(b':') {
            return Err(self.reader.syntax("a colon is missing"));
        }
        self.reader.at += 1;
        self.reader.space();
        let (begin, value) = (self.reader.at, self.reader.out.length(self.reader.at));
        self.value()?;
        self.members.push(Member {
            key,
            span: begin..self.reader.at,
            written: start..self.reader.out.length(self.reader.at),
            value,
            is_repeated: false,
        });
        Ok(())
    }

    /// Sorts the members of one object, which are the members from index `outer` on.
    fn order(&mut self, outer: usize) {
        let mut members = self.members.split_off(outer);
        let start = members[0].written.start - "{".len();
        order(&mut members);
        if self.depth > 1 {
            let written = start..self.reader.out.length(self.reader.at);
            let members = members.into_iter().map(|member| member.written).collect();
            self.unordered.push(Unordered { written, members });
        } else {
            self.members = members;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::canonical::parse;

    fn check_odd(text: &str, expected: bool) {
        assert_eq!(parse(text).unwrap().is_odd, expected, "{text}");
    }

    #[test]
    fn texts_that_serde_json_must_not_read_are_odd() {
        check_odd(r#"{"a":["b",1,null]}"#, false);
        check_odd("[NaN]", true);
        check_odd("-Infinity", true);
        check_odd(r#""\ud800""#, true);
        check_odd(r#""\ud83d\ude00""#, false);
        check_odd(r#"{"$serde":1}"#, true);
        check_odd(r#"{"\u0024serde":1}"#, true);
    }

    #[test]
    fn a_member_knows_its_place_in_the_text() {
        let text = r#" {"b" : [1, 2] ,"a":"x","b":3}"#;
        let document = parse(text).unwrap();
        let members = document.members().unwrap();
        let found: Vec<_> =
            members.iter().map(|m| (&text[m.span.clone()], m.is_repeated)).collect();
        assert_eq!(found, [("\"x\"", false), ("3", true)]);
    }
}
