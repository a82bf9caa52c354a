//! A string as Python has it: code points, lone surrogates among them.

use std::borrow::Cow;
use std::cmp::Ordering;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A string, decoded: UTF-8, in which a lone surrogate is encoded like any other code point
/// (WTF-8). So the order of the bytes is the order of the code points.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    bytes: Cow<'a, [u8]>,
    /// Whether it is written as it is: ASCII that needs no escape.
    is_plain: bool,
}

impl<'a> Text<'a> {
    /// Takes a string of printable ASCII without quotes and backslashes.
    pub(super) fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes: Cow::Borrowed(bytes), is_plain: true }
    }

    /// Takes any other string.
    pub(super) fn other(bytes: Cow<'a, [u8]>) -> Self {
        Self { bytes, is_plain: false }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the string, if it is Unicode.
    pub(crate) fn as_str(&self) -> Option<&str> {
        str::from_utf8(&self.bytes).ok()
    }

    /// Returns the string as canonical JSON.
    pub(crate) fn to_json(&self) -> String {
        let mut out = Vec::with_capacity(self.bytes.len() + 2);
        self.write(&mut out);
        String::from_utf8(out).expect("canonical JSON is ASCII")
    }

    /// Appends the string with its quotes and escapes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        if self.is_plain {
            out.extend_from_slice(&self.bytes);
        } else {
            escape(&self.bytes, out);
        }
        out.push(b'"');
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes.cmp(&other.bytes)
    }
}

/// Appends a code point in WTF-8.
pub(super) fn push(code_point: u32, out: &mut Vec<u8>) {
    if let Some(character) = char::from_u32(code_point) {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        // A lone surrogate: always three bytes.
        let tail = |shift: u32| 0x80 | (code_point >> shift & 0x3f) as u8;
        out.extend_from_slice(&[0xe0 | (code_point >> 12) as u8, tail(6), tail(0)]);
    }
}

/// Returns how many bytes are written as they are, up to the first that is not.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let is_special = |&byte: &u8| !IS_PLAIN[usize::from(byte)];
    bytes.iter().position(is_special).unwrap_or(bytes.len())
}

/// Whether a byte of a string is written as it is: printable ASCII without quotes and backslashes.
const IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0x20;
    while byte <= 0x7e {
        is_plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    is_plain
};

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let plain = plain_length(&bytes[at..]);
        if plain > 0 {
            out.extend_from_slice(&bytes[at..at + plain]);
            at += plain;
            continue;
        }
        let length = match byte {
            0x00..=0x7f => 1,
            0x80..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        let short = match byte {
            b'"' | b'\\' => Some(byte),
            0x08 => Some(b'b'),
            0x0c => Some(b'f'),
            b'\n' => Some(b'n'),
            b'\r' => Some(b'r'),
            b'\t' => Some(b't'),
            _ => None,
        };
        match short {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => escape_code_point(decode(&bytes[at..(at + length).min(bytes.len())]), out),
        }
        at += length;
    }
}

fn escape_code_point(code_point: u32, out: &mut Vec<u8>) {
    match code_point.checked_sub(0x1_0000) {
        None => escape_unit(code_point, out),
        Some(rest) => {
            escape_unit(0xd800 + (rest >> 10), out);
            escape_unit(0xdc00 + (rest & 0x3ff), out);
        }
    }
}

fn escape_unit(unit: u32, out: &mut Vec<u8>) {
    let digit = |shift: u32| HEX[(unit >> shift & 0xf) as usize];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Returns the code point of one sequence of WTF-8.
fn decode(sequence: &[u8]) -> u32 {
    let tail = |code_point: u32, byte: &u8| code_point << 6 | u32::from(byte & 0x3f);
    let (&first, rest) = sequence.split_first().expect("a sequence has a byte");
    let lead = match rest.len() {
        0 => return u32::from(first),
        1 => first & 0x1f,
        2 => first & 0x0f,
        _ => first & 0x07,
    };
    rest.iter().fold(u32::from(lead), tail)
}

#[cfg(test)]
mod tests {
    use crate::canonical::{Credentials, canonical_json};

    fn check(text: &str, expected: &str) {
        assert_eq!(canonical_json(text, Credentials::Kept).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn all_but_printable_ascii_is_escaped() {
        check(
            "\"é\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}😀~\"",
            r#""\u00e9\u007f\u0080\u07ff\u0800\uffff\ud83d\ude00~""#,
        );
        check(r#""\u0000\u001f\u0008\u000c\u000a\u000d\u0009""#, r#""\u0000\u001f\b\f\n\r\t""#);
        check(r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#);
        check("\"a/b<>&'\"", "\"a/b<>&'\"");
        check("\"\u{2028}\u{10ffff}\"", r#""\u2028\udbff\udfff""#);
    }

    #[test]
    fn an_escape_without_need_is_taken_back() {
        check(r#""\u0041\u005C\u0022\u007E\u00E9""#, r#""A\\\"~\u00e9""#);
        check(r#""\uD83D\uDE00""#, r#""\ud83d\ude00""#);
    }

    #[test]
    fn lone_surrogates_survive() {
        check(r#""\ud800""#, r#""\ud800""#);
        check(r#""\udc00\ud800x""#, r#""\udc00\ud800x""#);
        check(r#""\ud83d\ud83d\ude00""#, r#""\ud83d\ud83d\ude00""#);
        check(r#""\ud83d\u0041""#, r#""\ud83dA""#);
    }

    #[test]
    fn what_is_no_string_is_refused() {
        for text in [
            "\"",
            "\"a",
            "\"\\",
            "\"\\\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\u+123""#,
            "\"\u{1f}\"",
            "\"\n\"",
            r#""\ud83d\u""#,
            r#""\ud83d\uzzzz""#,
            "\"\\u00e\u{e9}\"",
        ] {
            assert!(canonical_json(text, Credentials::Kept).is_err(), "{text:?}");
        }
    }
}
