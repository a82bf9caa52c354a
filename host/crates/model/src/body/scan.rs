//! Checks of a JSON text before serde_json parses it.
//!
//! The scan finds nesting that is too deep, reserved keys, and escapes that may be lone surrogates. It does
//! not check the syntax, so a text that passes may still be invalid JSON. serde_json parses the text after
//! the scan.

use super::error::{BodyError, MAX_DEPTH, RESERVED};

/// Whether a text may contain halves of surrogate pairs, written as escapes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Surrogates {
    None,
    Possible,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Scan {
    pub(super) surrogates: Surrogates,
    /// Maximum nesting depth of arrays and objects in the text.
    pub(super) depth: usize,
}

/// Returns true if a text needs no [`scan`], because the scan would succeed and find no surrogates if the
/// text is JSON.
///
/// This is the case if the text has at most [`MAX_DEPTH`] opening brackets, no dollar sign, and no escape of
/// a dollar sign or of a surrogate. The loops have no early exit, and each sum fits into one byte, so that
/// the compiler vectorizes the loops.
pub(super) fn is_harmless(text: &str) -> bool {
    let bytes = text.as_bytes();
    let has_dollar = bytes.iter().fold(false, |found, &byte| found | (byte == b'$'));
    // `\u0024` is a dollar sign. The escape of a surrogate begins with `\ud`.
    let is_suspect = |w: &[u8]| {
        (w[0] == b'\\')
            & (w[1] == b'u')
            & ((w[2] | 0x20 == b'd') | ((w[4] == b'2') & (w[5] == b'4')))
    };
    let has_suspect = bytes.windows(6).fold(false, |found, w| found | is_suspect(w));
    !has_dollar && !has_suspect && openings(text) <= MAX_DEPTH
}

/// Returns the number of `[` and `{` in a text, also inside strings. The nesting depth is at most this
/// number.
pub(super) fn openings(text: &str) -> usize {
    let is_opening = |&byte: &u8| u8::from(byte | 0x20 == b'{');
    let count = |part: &[u8]| usize::from(part.iter().map(is_opening).sum::<u8>());
    text.as_bytes().chunks(255).map(count).sum()
}

/// Scans a text byte by byte. Returns an error for nesting that is too deep and for reserved keys.
pub(super) fn scan(text: &str) -> Result<Scan, BodyError> {
    let bytes = text.as_bytes();
    let mut surrogates = Surrogates::None;
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at;
                while let Some(&byte) = bytes.get(at)
                    && byte != b'"'
                {
                    at += if byte == b'\\' { 2 } else { 1 };
                    if byte == b'\\'
                        && let [b'u', b'd' | b'D', ..] = bytes.get(at - 1..).unwrap_or_default()
                    {
                        surrogates = Surrogates::Possible;
                    }
                }
                at += 1;
                if is_reserved(text.get(start - 1..at).unwrap_or_default()) {
                    return Err(BodyError::ReservedKey);
                }
            }
            _ => (),
        }
        deepest = deepest.max(depth);
        if depth > MAX_DEPTH {
            return Err(BodyError::TooDeep);
        }
    }
    Ok(Scan { surrogates, depth: deepest })
}

/// Returns true if a string begins with the reserved prefix. `quoted` is the string with its quotes and
/// escapes.
fn is_reserved(quoted: &str) -> bool {
    let raw = quoted.get(1..).unwrap_or_default();
    raw.starts_with(RESERVED)
        || (raw.contains('\\')
            && serde_json::from_str::<String>(quoted).is_ok_and(|text| text.starts_with(RESERVED)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn check_harmless(text: &str, expected: bool) {
        assert_eq!(is_harmless(text), expected, "{text}");
        assert!(!expected || scan(text).unwrap().surrogates == Surrogates::None, "{text}");
    }

    #[test]
    fn ordinary_texts_skip_the_scan() {
        check_harmless("", true);
        check_harmless(r#"{"a":[1,"\u00fc \n"]}"#, true);
        check_harmless(r#"["\ud83d\ude00"]"#, false);
        check_harmless(r#""\uD800""#, false);
        check_harmless(r#""\u0024""#, false);
        check_harmless(r#""a$""#, false);
        check_harmless(&"[]".repeat(MAX_DEPTH), true);
        for brackets in [MAX_DEPTH + 1, 256, 1000, 100_000] {
            check_harmless(&"{".repeat(brackets), false);
        }
    }

    #[test]
    fn the_depth_is_that_of_the_deepest_value() {
        for (text, expected) in [("1", 0), ("[]", 1), (r#"{"a":[[],"[["],"b":{}}"#, 3)] {
            assert_eq!(scan(text).unwrap().depth, expected, "{text}");
            assert!(openings(text) >= expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_harmless_text_passes_the_scan(text in r#""(\\u00[22ab4]{2}|\\u[dD]8[0-9]{2}|[$a]){0,3}"|(\[){120,135}(\]){120,135}"#) {
            let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
            let is_clean = scan(&text).is_ok_and(|scan| scan.surrogates == Surrogates::None);
            prop_assert!(is_clean || !is_harmless(&text) || !is_json);
        }
    }
}
