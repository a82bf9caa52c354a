//! A member of a JSON object, and the canonical order of members.

use std::ops::Range;

use super::quoted::Quoted;

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub(crate) key: Quoted<'a>,
    /// Byte range of the value in the parsed text.
    pub(crate) span: Range<usize>,
    /// Byte range of key and value in the output.
    pub(super) written: Range<usize>,
    /// Start of the value in the output.
    pub(super) value: usize,
    /// True if the object has an earlier member with the same key. The earlier member is dropped.
    pub(crate) is_repeated: bool,
}

/// Returns true if the members are in canonical order and have no repeated key.
pub(super) fn is_ordered(members: &[Member<'_>]) -> bool {
    members.windows(2).all(|pair| pair[0].key.is_before(pair[1].key))
}

/// Sorts members into canonical order. Of members with the same key, only the last one is kept.
pub(super) fn order(members: &mut Vec<Member<'_>>) {
    // The sort is stable, so members with the same key stay in the order of the text.
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
