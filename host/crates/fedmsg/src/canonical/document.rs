//! A JSON text that was read, on its way to the canonical form.
//!
//! The reader writes all as it comes and notes which objects have members in another order. They are
//! put into order when the whole is copied, so that each byte is moved once, however deep it stands.

use std::ops::Range;

use super::{Credentials, JsonError, Member, parser::Parser};

/// The keys that are added to a body after it was signed.
const CREDENTIALS: [&[u8]; 2] = [b"signature", b"certificate"];

/// A JSON text that was read to its end as Python understands it.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// The canonical form, but for the order of members.
    pub(super) out: String,
    /// The members of the outermost object, in canonical order.
    pub(super) members: Vec<Member<'a>>,
    /// The other objects whose members came in another order, by where they begin.
    pub(super) unordered: Vec<Unordered>,
    /// Whether something in it is not for serde_json, or may not be: `NaN` and its like, a lone
    /// surrogate, or a string that may start as serde_json's reserved keys do.
    pub(crate) is_odd: bool,
}

/// An object whose members came in another order than the canonical one.
#[derive(Debug)]
pub(super) struct Unordered {
    /// Where it stands in the output, from its brace up to the other one.
    pub(super) written: Range<usize>,
    /// Where the members stand that are to stay, in canonical order.
    pub(super) members: Vec<Range<usize>>,
}

impl<'a> Document<'a> {
    /// Parses a text to its end.
    pub(crate) fn parse(text: &'a str) -> Result<Self, JsonError> {
        Parser::new(text).document()
    }

    /// Returns the members of the outermost object in canonical order, or none for anything else.
    pub(crate) fn members(&self) -> Option<&[Member<'a>]> {
        self.out.starts_with('{').then_some(&self.members)
    }

    /// Returns the key of a member in canonical form.
    pub(crate) fn key(&self, member: &Member<'_>) -> &str {
        &self.out[member.written.start..member.value - ":".len()]
    }

    /// Returns the value of a member in canonical form, but for the order of members in it.
    pub(crate) fn value(&self, member: &Member<'_>) -> &str {
        &self.out[member.value..member.written.end]
    }

    /// Returns the canonical form, and where in it the value of the outermost `msg` stands.
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

    /// Appends a part of the output with the members of each object in order. It calls itself, as often
    /// as the limit of the depth let the reader.
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
