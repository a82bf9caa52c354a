//! Strings as Python has them: code points, lone surrogates among them.

use std::borrow::Cow;

use super::JsonError;
use super::parser::Parser;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What stands between the quotes of a string that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a> {
    raw: &'a str,
    /// Whether it is printable ASCII without escapes.
    is_plain: bool,
}

impl<'a> Quoted<'a> {
    /// Tells whether the string comes before another in the order of code points.
    pub(super) fn is_before(self, other: Self) -> bool {
        match self.is_plain && other.is_plain {
            true => self.raw < other.raw,
            false => self.decoded() < other.decoded(),
        }
    }

    /// Returns the string in WTF-8: UTF-8, in which a lone surrogate is encoded like any other code
    /// point. So the order of the bytes is the order of the code points.
    pub(crate) fn decoded(self) -> Cow<'a, [u8]> {
        match self.is_plain {
            true => Cow::Borrowed(self.raw.as_bytes()),
            false => Cow::Owned(decode(self.raw)),
        }
    }
}

impl<'a> Parser<'a> {
    /// Reads a string.
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        // serde_json's reserved keys start so; whoever asks serde_json looks closer.
        self.is_odd |= self.peek() == Some(b'$');
        let mut is_plain = true;
        loop {
            self.at += plain_length(self.rest());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0x7f..) => self.other_character(),
                Some(_) => return Err(self.syntax("a string has a control character")),
                None => return Err(self.syntax("a string has no end")),
            }
            is_plain = false;
        }
        self.at += 1;
        Ok(Quoted { raw: &self.text[start..self.at - 1], is_plain })
    }

    /// Reads a character that is not ASCII, or the last one that is.
    fn other_character(&mut self) {
        let Some(character) = self.text[self.at..].chars().next() else { return };
        let start = self.at;
        self.at += character.len_utf8();
        let out = self.out.instead(start, self.at);
        character.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| write_unit(unit, out));
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.rest().get(1) {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'/') => {
                self.out.leave_out(self.at, self.at + 1);
                self.at += 2;
            }
            Some(b'u') => self.escaped_character()?,
            Some(_) => return Err(self.syntax("an escape is unknown")),
            None => return Err(self.syntax("a string has no end")),
        }
        Ok(())
    }

    /// Reads `\uXXXX`, or two of them that are one character.
    fn escaped_character(&mut self) -> Result<(), JsonError> {
        let Some(unit) = self.unit() else {
            return Err(self.syntax("an escape needs four hexadecimal digits"));
        };
        self.rewrite(unit);
        if is_high(unit)
            && let Some(low) = self.unit().filter(|&next| is_low(next))
        {
            self.rewrite(low);
            return Ok(());
        }
        self.is_odd |= is_high(unit) || is_low(unit) || unit == u16::from(b'$');
        Ok(())
    }

    /// Returns the unit of UTF-16 that is escaped here.
    fn unit(&self) -> Option<u16> {
        let digits = self.rest().strip_prefix(b"\\u")?.get(..4)?;
        digits.iter().try_fold(0, |unit, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(unit << 4 | digit as u16)
        })
    }

    /// Writes the unit that is escaped here as Python does.
    fn rewrite(&mut self, unit: u16) {
        let start = self.at;
        self.at += r"\uXXXX".len();
        write_unit(unit, self.out.instead(start, self.at));
    }
}

fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

/// Appends a unit of UTF-16 as it stands in a string of canonical JSON.
fn write_unit(unit: u16, out: &mut String) {
    let letter = match unit {
        0x22 => '"',
        0x5c => '\\',
        0x08 => 'b',
        0x09 => 't',
        0x0a => 'n',
        0x0c => 'f',
        0x0d => 'r',
        0x20..0x7f => return out.push(char::from(unit as u8)),
        _ => {
            let digit = |shift: u16| char::from(HEX[usize::from(unit >> shift & 0xf)]);
            out.push_str("\\u");
            return out.extend([digit(12), digit(8), digit(4), digit(0)]);
        }
    };
    out.extend(['\\', letter]);
}

/// Returns what a string that was read stands for, in WTF-8.
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
            // A lone surrogate: always three bytes.
            Err(lone) => {
                let unit = lone.unpaired_surrogate();
                let tail = |shift: u16| 0x80 | (unit >> shift & 0x3f) as u8;
                out.extend_from_slice(&[0xe0 | (unit >> 12) as u8, tail(6), tail(0)]);
            }
        }
    }
    out
}

/// Returns how many bytes are written as they are, up to the first that is not. Most strings have a
/// word or two, so a call would cost as much.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (index, &word) in words.iter().enumerate() {
        let marks = special(u64::from_le_bytes(word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| !matches!(byte, 0x20..0x7f) || matches!(byte, b'"' | b'\\');
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Marks the bytes that are not written as they are, all eight at once: the highest bit of each that is
/// no printable ASCII, a quote or a backslash. Bytes above the lowest of them may be marked too, since
/// a carry goes up.
fn special(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word;
    let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    let above = word | word.wrapping_add(EACH);
    (below(word, 0x20) | is(b'"') | is(b'\\') | above) & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn the_first_byte_that_is_not_plain_is_found() {
        let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                for after in [b' ', b'!', b'#', b'[', b']', b'~', 0, 0x1f, 0x7f, 0x80, 0xff] {
                    let mut bytes = [b'a'; 20];
                    bytes[at] = byte;
                    bytes[at + 1..].fill(after);
                    let expected = bytes.iter().position(|&byte| !plain(byte)).unwrap_or(20);
                    assert_eq!(plain_length(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }
}
