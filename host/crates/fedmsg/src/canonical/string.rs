//! Reads strings as Python does: as sequences of code points, which may include lone surrogates.

use super::error::JsonError;
use super::quoted::Quoted;
use super::reader::Reader;

const HEX: &[u8; 16] = b"0123456789abcdef";

impl<'a> Reader<'a> {
    /// Reads a string, including its quotes.
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        // serde_json's reserved keys begin with a dollar sign. If a string begins with one, the caller checks
        // the text again.
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

    /// Reads a character outside ASCII, or `DEL`.
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

    /// Reads `\uXXXX`, or two of these escapes that are a surrogate pair.
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

    /// Returns the UTF-16 code unit of the escape at the current position.
    fn unit(&self) -> Option<u16> {
        let digits = self.rest().strip_prefix(b"\\u")?.get(..4)?;
        digits.iter().try_fold(0, |unit, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(unit << 4 | digit as u16)
        })
    }

    /// Writes the escape at the current position as Python does. `unit` is its UTF-16 code unit.
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

/// Appends a UTF-16 code unit as canonical JSON writes it.
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

/// Returns the number of leading bytes that are copied unchanged. The function is inlined, because most
/// strings are so short that a call would cost as much as the work.
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

/// Marks the bytes of a word of eight that are not copied unchanged: sets the highest bit of each byte that
/// is a quote, a backslash or not printable ASCII. A carry may wrongly mark bytes above the lowest marked
/// byte, so callers use only the lowest mark.
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
    fn characters_outside_printable_ascii_are_escaped() {
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
    fn an_unnecessary_escape_is_removed() {
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
    fn invalid_strings_are_refused() {
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
