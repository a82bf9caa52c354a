//! The token of the operator's port, which a client must know if the port can be reached from other machines.
//!
//! A program sends it as `Authorization: Bearer TOKEN`. A browser asks for a name and a password; the token is the password,
//! and the name can be anything.

use std::path::Path;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::ConfigError;

/// The minimum length of a token, in bytes: that of 128 random bits in hexadecimal.
const MIN_LENGTH: usize = 32;
/// The maximum length of a token, in bytes.
const MAX_LENGTH: usize = 512;

/// A token. It is kept as a digest: two digests can be compared byte by byte, because how long that takes says nothing
/// about the token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// Reads the token in a file, without whitespace around it.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::of(&read(path)?))
    }

    /// Returns the token with this text.
    pub(crate) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Returns whether a request has the token.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        sent.and_then(token_of).is_some_and(|token| Self::of(&token) == *self)
    }
}

/// Reads the text of the token in a file.
///
/// # Errors
///
/// If the file cannot be read, or has no token of a sensible length.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Token { path: path.to_owned(), source })?;
    let token = text.trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&token.len()) || !is_plain {
        return Err(ConfigError::TokenForm { path: path.to_owned() });
    }
    Ok(token.to_owned())
}

/// Returns the token in the value of `Authorization`: see RFC 6750, section 2.1, and RFC 7617, section 2.
fn token_of(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(from_base64(rest.trim())?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

/// Decodes base64: RFC 4648, section 4.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| {
        Some(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | value(*byte)?;
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn check(value: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        assert_eq!(Token::of(TOKEN).is_in(&headers), expected, "{value}");
    }

    #[test]
    fn programs_and_browsers_send_the_token() {
        check(&format!("Bearer {TOKEN}"), true);
        check(&format!("bearer  {TOKEN}"), true);
        // `ann:` and the token.
        check("Basic YW5uOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm", true);
        check("Basic YW5uOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVn", false);
        for value in [TOKEN, "Bearer", "Bearer ", "Basic", "Basic !!!!", "Basic YW5u", "Digest x"] {
            check(value, false);
        }
        assert!(!Token::of(TOKEN).is_in(&HeaderMap::new()));
    }

    #[test]
    fn base64_is_decoded() {
        for (text, expected) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE", "fooba")]
        {
            assert_eq!(from_base64(text).unwrap(), expected.as_bytes(), "{text}");
        }
        assert_eq!(from_base64("Zm 9"), None);
    }

    #[test]
    fn a_file_without_a_real_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(Token::read(&path), Err(ConfigError::Token { .. })));
        for text in ["", "short", &"a b ".repeat(20), &"x".repeat(513)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Token::read(&path), Err(ConfigError::TokenForm { .. })), "{text}");
        }
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        assert_eq!(Token::read(&path).unwrap(), Token::of(TOKEN));
    }
}
