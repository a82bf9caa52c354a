//! A JSON value as Python has it after `json.loads`.

use std::ops::Range;

use super::Text;

/// A JSON value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// The digits, with a sign before them if it matters: an integer of Python has no end.
    Integer(&'a str),
    Float(f64),
    Text(Text<'a>),
    Array(Vec<Value<'a>>),
    /// In the order of their keys, each key once.
    Object(Vec<Member<'a>>),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) key: Text<'a>,
    pub(crate) value: Value<'a>,
    /// Where the value stands in the text.
    pub(crate) span: Range<usize>,
    /// Whether the same key came before it, and lost.
    pub(crate) is_repeated: bool,
}

/// Puts members into canonical order; of equal keys the last one stays.
pub(super) fn order(members: &mut Vec<Member<'_>>) {
    let is_ordered = members.windows(2).all(|pair| pair[0].key < pair[1].key);
    if is_ordered {
        return;
    }
    // A stable sort: equal keys stay in the order in which they came.
    members.sort_by(|a, b| a.key.cmp(&b.key));
    members.dedup_by(|later, kept| {
        let is_same = later.key == kept.key;
        if is_same {
            std::mem::swap(later, kept);
            kept.is_repeated = true;
        }
        is_same
    });
}
