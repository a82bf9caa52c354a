//! Base64, decoded as Python's `base64.b64decode` does.
//!
//! Characters outside the base64 alphabet are skipped. This is necessary, because publishers break the text
//! into lines. An `=` that does not complete a group of four characters is skipped as well (CPython,
//! `Modules/binascii.c`, `a2b_base64` without its strict mode).
//!
//! We are stricter in one case: characters of the alphabet after the padding are an error. CPython 3.11 ignores
//! them, and CPython 3.13 decodes them, so the same text has two values.

/// The error for a text that is not base64: it has characters outside ASCII, its last group is incomplete, or it
/// goes on after its padding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotBase64;

/// Decodes a base64 text.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, NotBase64> {
    if !text.is_ascii() {
        return Err(NotBase64);
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut group, mut count, mut padding) = (0_u32, 0, 0);
    for (index, &byte) in text.iter().enumerate() {
        if byte == b'=' {
            if count >= 2 {
                padding += 1;
                if count + padding >= 4 {
                    let bytes = (group << (6 * (4 - count))).to_be_bytes();
                    out.extend_from_slice(&bytes[1..count]);
                    let goes_on = text[index..].iter().any(|&byte| is_in_alphabet(byte));
                    return if goes_on { Err(NotBase64) } else { Ok(out) };
                }
            }
            continue;
        }
        if !is_in_alphabet(byte) {
            continue;
        }
        padding = 0;
        group = group << 6 | u32::from(VALUES[usize::from(byte)]);
        count += 1;
        if count == 4 {
            out.extend_from_slice(&group.to_be_bytes()[1..]);
            (group, count) = (0, 0);
        }
    }
    if count == 0 { Ok(out) } else { Err(NotBase64) }
}

fn is_in_alphabet(byte: u8) -> bool {
    VALUES[usize::from(byte)] < 64
}

/// The value of each byte in base64. A byte outside the alphabet has a value of 64 or more.
const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [u8::MAX; 256];
    let mut index = 0;
    while index < alphabet.len() {
        values[alphabet[index] as usize] = index as u8;
        index += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, NotBase64>) {
        let found = decode(text.as_bytes());
        assert_eq!(found.as_deref(), expected.map(str::as_bytes).as_deref(), "{text}");
    }

    #[test]
    fn groups_of_four_are_three_bytes() {
        check("", Ok(""));
        check("Zm9v", Ok("foo"));
        check("Zm9vYmFy", Ok("foobar"));
        check("Zm9vYg==", Ok("foob"));
        check("Zm9vYmE=", Ok("fooba"));
    }

    #[test]
    fn characters_outside_the_alphabet_are_skipped() {
        check("Zm9v!!!!", Ok("foo"));
        check("Zm\n9 v\u{0}", Ok("foo"));
        check("Z-m_9.v", Ok("foo"));
    }

    #[test]
    fn a_text_that_goes_on_after_its_padding_is_refused() {
        check("Zm9vYmE=!", Ok("fooba"));
        check("Zg=\n=", Ok("f"));
        check("Zg==\n\n=_", Ok("f"));
        check("Zm9vYg==Zm9v", Err(NotBase64));
        check("Zm9vYmE=_n", Err(NotBase64));
    }

    #[test]
    fn padding_at_another_place_is_skipped() {
        check("====", Ok(""));
        check("=Zm9v", Ok("foo"));
        check("Z=m9v", Ok("foo"));
        check("Zm=9v", Ok("foo"));
    }

    #[test]
    fn an_incomplete_group_is_refused() {
        for text in ["Z", "Zm", "Zm9", "Zm9vY", "Zm=", "Z===", "Z=", "Zm9vYg=Z"] {
            check(text, Err(NotBase64));
        }
    }

    #[test]
    fn characters_outside_ascii_are_refused() {
        check("Zm9vÖ", Err(NotBase64));
    }
}
