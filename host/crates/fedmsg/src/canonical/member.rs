//! A member of an object, and the order of members.

use std::ops::Range;

use super::string::Quoted;

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) key: Quoted<'a>,
    /// Where the value stands in the text that was read.
    pub(crate) span: Range<usize>,
    /// Where key and value stand in the output.
    pub(super) written: Range<usize>,
    /// Where the value begins in the output.
    pub(super) value: usize,
    /// Whether the same key came before it, and lost.
    pub(crate) is_repeated: bool,
}

/// Tells whether members are in canonical order, each key once.
pub(super) fn is_ordered(members: &[Member<'_>]) -> bool {
    members.windows(2).all(|pair| pair[0].key.is_before(pair[1].key))
}

/// Puts members into canonical order; of equal keys the last one stays.
pub(super) fn order(members: &mut Vec<Member<'_>>) {
    // A stable sort: equal keys stay in the order in which they came.
    members.sort_by_cached_key(|member| member.key.decoded());
    members.dedup_by(|later, kept| {
        let is_same = later.key.decoded() == kept.key.decoded();
        if is_same {
            std::mem::swap(later, kept);
            kept.is_repeated = true;
        }
        is_same
    });
}
