//! The encoding of one segment of a URL's path (RFC 3986, section 3.3).

use super::percent::escaped;
use crate::failure::{Result, reject};

/// The maximum length of a text, in bytes.
const MAX_BYTES: usize = 1024;
/// The number of encodings inside each other that are looked through.
const MAX_DECODED: usize = 8;
/// The number of characters of a refused text that the reason shows.
const MAX_SHOWN: usize = 100;

/// Encodes a text, for example a name from a message, as one segment of a URL's path.
///
/// Everything except ASCII letters, digits and `-._~` is percent-encoded, so the text cannot add a query or a fragment
/// to the URL. It cannot add a segment either, except on servers that decode `%2F` before they split the path.
///
/// ```
/// # use loopabull_task::http::segment;
/// assert_eq!(segment("gtk+").unwrap(), "gtk%2B");
/// assert_eq!(segment("a/b?c").unwrap(), "a%2Fb%3Fc");
/// assert!(segment("..").is_err());
/// ```
///
/// # Errors
///
/// [`Failure::Reject`](crate::Failure::Reject) if the text is empty, longer than 1 KiB or has a control character, or has a part `.` or
/// `..` between slashes, also if it is encoded, once or several times: a server could take it for another path.
pub fn segment(text: impl AsRef<str>) -> Result<String> {
    let text = text.as_ref();
    let is_segment = |plain: &String| {
        let is_name = |part: &str| !matches!(part, "." | "..");
        plain.split(['/', '\\']).all(is_name) && !plain.chars().any(char::is_control)
    };
    if text.is_empty() || text.len() > MAX_BYTES || !decoded(text).as_ref().is_some_and(is_segment)
    {
        let text: String = text.chars().take(MAX_SHOWN).collect();
        return reject(format!("`{}` cannot be a part of a URL's path", text.escape_default()));
    }
    let mut segment = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                segment.push(byte.into());
            }
            _ => segment.extend(escaped(byte)),
        }
    }
    Ok(segment)
}

/// Replaces the percent-encodings that matter here, until there are none. Returns `None` if that takes long.
fn decoded(text: &str) -> Option<String> {
    let mut text = text.to_ascii_lowercase();
    for _ in 0..MAX_DECODED {
        let before = text.len();
        for (encoded, plain) in [("%25", "%"), ("%2e", "."), ("%2f", "/"), ("%5c", "\\")] {
            text = text.replace(encoded, plain);
        }
        if text.len() == before {
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_text_stays_one_segment() {
        for (text, expected) in [
            ("python3-ü", "python3-%C3%BC"),
            ("a b&c#d?e/f\\g", "a%20b%26c%23d%3Fe%2Ff%5Cg"),
            ("100%", "100%25"),
            ("...", "..."),
            ("a..b", "a..b"),
            (".hidden", ".hidden"),
        ] {
            assert_eq!(segment(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_text_that_is_too_long_or_too_often_encoded_is_refused() {
        assert!(segment("a".repeat(1024)).is_ok() && segment("a".repeat(1025)).is_err());
        assert!(segment(format!("%{}2e", "25".repeat(100))).is_err());
    }

    #[test]
    fn a_text_that_leads_elsewhere_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "%2e",
            "%2E.",
            ".%2e",
            "%2e%2E",
            "%252e%252e",
            "a\nb",
            "a\0",
            "../x",
            "a/..",
            "..%2Fx",
            "x%252f..",
            "a\\..\\b",
            "%25252e",
        ] {
            let error = segment(text).unwrap_err();
            let reason = format!("`{}` cannot be a part of a URL's path", text.escape_default());
            assert_eq!(error, crate::Failure::Reject(reason));
        }
    }
}
