//! A JSON text that was parsed, on its way to the canonical form.
//!
//! The parser writes everything in the order of the text, and notes the objects whose members are not in
//! canonical order. Copying the output sorts them, so that each byte is moved once at any depth.

use std::ops::Range;

use super::member::Member;

/// The keys that are added to a body after it was signed.
const CREDENTIALS: [&[u8]; 2] = [b"signature", b"certificate"];

/// Whether the keys `signature` and `certificate` of the outermost object are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// They are written like all other keys.
    Kept,
    /// They are left out, as a verifier does.
    LeftOut,
}

/// A JSON text that was parsed to its end, with Python's leniencies.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    /// The canonical form, except for the order of members.
    pub(super) out: String,
    /// The members of the outermost object, in canonical order.
    pub(super) members: Vec<Member<'a>>,
    /// The other objects whose members are not in canonical order, sorted by where they begin.
    pub(super) unordered: Vec<Unordered>,
    /// True if serde_json must not read the text, or may not be able to: it has `NaN` or the like, a lone
    /// surrogate, or a string that may begin like serde_json's reserved keys.
    pub(crate) is_odd: bool,
}

/// An object whose members are not in canonical order.
#[derive(Debug)]
pub(super) struct Unordered {
    /// The place of the object in the output, braces included.
    pub(super) written: Range<usize>,
    /// The places of the members that are kept, in canonical order.
    pub(super) members: Vec<Range<usize>>,
}

impl<'a> Document<'a> {
    /// Returns the members of the outermost object in canonical order, or none for anything else.
    pub(crate) fn members(&self) -> Option<&[Member<'a>]> {
        self.out.starts_with('{').then_some(&self.members)
    }

    /// Returns the key of a member in canonical form.
    pub(crate) fn key(&self, member: &Member<'_>) -> &str {
        &self.out[member.written.start..member.value - ":".len()]
    }

    /// Returns the value of a member in canonical form, except for the order of members in it.
    pub(crate) fn value(&self, member: &Member<'_>) -> &str {
        &self.out[member.value..member.written.end]
    }

    /// Returns the canonical form, and the place in it of the value of the outermost `msg`.
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

    /// Appends a part of the output with the members of each object sorted. The recursion is bounded by the
    /// depth that the parser accepted.
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
