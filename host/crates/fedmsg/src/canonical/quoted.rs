//! A JSON string as it is written in a text, and the order of strings by code point.

use std::borrow::Cow;

/// The text between the quotes of a JSON string.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a> {
    pub(super) raw: &'a str,
    /// True if the string is printable ASCII without escapes.
    pub(super) is_plain: bool,
}

impl<'a> Quoted<'a> {
    /// Returns true if this string comes before `other` in the order of code points.
    pub(super) fn is_before(self, other: Self) -> bool {
        match self.is_plain && other.is_plain {
            true => self.raw < other.raw,
            false => self.decoded() < other.decoded(),
        }
    }

    /// Returns the string in WTF-8: UTF-8 that encodes lone surrogates like other code points. Strings in
    /// WTF-8 have the same order by bytes as by code points.
    pub(crate) fn decoded(self) -> Cow<'a, [u8]> {
        match self.is_plain {
            true => Cow::Borrowed(self.raw.as_bytes()),
            false => Cow::Owned(decode(self.raw)),
        }
    }
}

/// Decodes the text between the quotes of a JSON string into WTF-8.
fn decode(raw: &str) -> Vec<u8> {
    let mut units = Vec::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next() {
                Some('u') => {
                    let digits = characters.by_ref().take(4);
                    let unit = digits.filter_map(|digit| digit.to_digit(16));
                    units.push(unit.fold(0, |unit, digit| unit << 4 | digit as u16));
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                other => other.unwrap_or('\\'),
            },
            other => other,
        };
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    }
    let mut out = Vec::with_capacity(raw.len());
    for character in char::decode_utf16(units) {
        match character {
            Ok(character) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // WTF-8 encodes a lone surrogate in three bytes.
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                let tail = |shift: u16| 0x80 | (unit >> shift & 0x3f) as u8;
                out.extend_from_slice(&[0xe0 | (unit >> 12) as u8, tail(6), tail(0)]);
            }
        }
    }
    out
}
