//! A parsed JSON text, from which the canonical form is made.
//!
//! The parser writes all values in the order of the text, and records which objects have members out of
//! canonical order. Their members are sorted later, when the whole output is copied. So each byte is moved
//! only once, however deep it is nested.

use std::ops::Range;

use super::member::Member;

/// The keys that are added to a body after it was signed.
const CREDENTIALS: [&[u8]; 2] = [b"signature", b"certificate"];

/// Whether the keys `signature` and `certificate` of the outermost object are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// Write these keys like all other keys.
    Kept,
    /// Omit these keys, because the signature does not cover them.
    LeftOut,
}

/// A JSON text that was parsed to its end, with all extensions of JSON that Python accepts.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// Canonical form, except for the order of members.
    pub(super) out: String,
    /// Members of the outermost object, in canonical order.
    pub(super) members: Vec<Member<'a>>,
    /// Other objects whose members are not in canonical order, sorted by their start in the output.
    pub(super) unordered: Vec<Unordered>,
    /// True if the text needs a check by serde_json: it has `NaN` or an infinity, a lone surrogate, or a
    /// string that may start with a reserved key of serde_json.
    pub(crate) is_odd: bool,
}

/// An object whose members are not in canonical order.
#[derive(Debug)]
pub(super) struct Unordered {
    /// Byte range of the object in the output, including its braces.
    pub(super) written: Range<usize>,
    /// Byte ranges of its members in the output, in canonical order and without repeated keys.
    pub(super) members: Vec<Range<usize>>,
}

impl<'a> Document<'a> {
    /// Returns the members of the outermost object in canonical order, or `None` if the text is not an
    /// object.
    pub(crate) fn members(&self) -> Option<&[Member<'a>]> {
        self.out.starts_with('{').then_some(&self.members)
    }

    /// Returns the key of a member in canonical form.
    pub(crate) fn key(&self, member: &Member<'_>) -> &str {
        &self.out[member.written.start..member.value - ":".len()]
    }

    /// Returns the value of a member in canonical form, except for the order of members inside the value.
    pub(crate) fn value(&self, member: &Member<'_>) -> &str {
        &self.out[member.value..member.written.end]
    }

    /// Returns the canonical form, and the byte range of the outermost `msg` value in the canonical form.
    pub(crate) fn to_canonical(&self, credentials: Credentials) -> (String, Option<Range<usize>>) {
        let mut to = String::with_capacity(self.out.len());
        let mut msg = None;
        let Some(members) = self.members() else {
            self.append(0..self.out.len(), &mut to);
            return (to, msg);
        };
        to.push('{');
        for member in members {
            let is_credential = CREDENTIALS.contains(&&*member.key.decoded());
            if is_credential && credentials == Credentials::LeftOut {
                continue;
            }
            if to.len() > 1 {
                to.push(',');
            }
            self.append(member.written.start..member.value, &mut to);
            let start = to.len();
            self.append(member.value..member.written.end, &mut to);
            if *member.key.decoded() == *b"msg" {
                msg = Some(start..to.len());
            }
        }
        to.push('}');
        (to, msg)
    }

    /// Appends a part of the output, with the members of each object sorted. The recursion is limited by the
    /// maximum nesting depth of the parser.
    fn append(&self, part: Range<usize>, to: &mut String) {
        let mut at = part.start;
        while let Some(object) = self.unordered_from(at)
            && object.written.start < part.end
        {
            to.push_str(&self.out[at..object.written.start]);
            for (index, member) in object.members.iter().enumerate() {
                to.push(if index == 0 { '{' } else { ',' });
                self.append(member.clone(), to);
            }
            at = object.written.end;
        }
        to.push_str(&self.out[at..part.end]);
    }

    fn unordered_from(&self, at: usize) -> Option<&Unordered> {
        let index = self.unordered.partition_point(|object| object.written.start < at);
        self.unordered.get(index)
    }
}
