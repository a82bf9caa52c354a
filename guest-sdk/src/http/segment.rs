//! The encoding of one segment of a URL's path (RFC 3986, section 3.3).

use super::percent::escaped;
use crate::failure::{Result, reject};

/// Encodes a text, for example a name from a message, as one segment of a URL's path.
///
/// Everything except ASCII letters, digits and `-._~` is percent-encoded, so the text cannot add a query or a fragment
/// to the URL, nor a segment unless a server decodes `%2F` before it splits the path.
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
/// [`Failure::Reject`](crate::Failure::Reject) if the text is empty, has a control character, or has a part `.` or
/// `..` between slashes, also if it is encoded, once or several times: a server could take it for another path.
pub fn segment(text: impl AsRef<str>) -> Result<String> {
    let text = text.as_ref();
    let plain = decoded(text);
    let leads_elsewhere = plain.split(['/', '\\']).any(|part| matches!(part, "." | ".."));
    if text.is_empty() || leads_elsewhere || plain.chars().any(char::is_control) {
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

/// Replaces the percent-encodings that matter here, until there are none.
fn decoded(text: &str) -> String {
    let mut text = text.to_ascii_lowercase();
    loop {
        let before = text.len();
        for (encoded, plain) in [("%25", "%"), ("%2e", "."), ("%2f", "/"), ("%5c", "\\")] {
            text = text.replace(encoded, plain);
        }
        if text.len() == before {
            return text;
        }
    }
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
