//! Percent-encoding, which paths and forms use for characters with another meaning.

/// Returns the percent-encoding of a byte (RFC 3986, section 2.1).
pub(super) fn escaped(byte: u8) -> [char; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
    ['%', digit(byte >> 4), digit(byte)]
}
