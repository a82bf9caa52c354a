//! Reads numbers: integers of any size, and floats.

use super::error::{JsonError, MAX_INTEGER_DIGITS};
use super::float;
use super::reader::Reader;

/// The maximum number of digits with which two different decimal numbers are always two different floats
/// (`DBL_DIG` in C).
const DISTINCT_DIGITS: usize = 15;

impl Reader<'_> {
    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    /// Reads a number or `-Infinity`.
    pub(super) fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let is_negative = self.peek() == Some(b'-');
        self.at += usize::from(is_negative);
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => {
                self.at = start;
                return self.name();
            }
        }
        let whole = self.at;
        if let [b'.', b'0'..=b'9', ..] = self.rest() {
            self.at += 1;
            self.digits();
        }
        if let [b'e' | b'E', b'0'..=b'9', ..] | [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] =
            self.rest()
        {
            self.at += 2;
            self.digits();
        }
        let number = &self.text[start..self.at];
        if self.at > whole {
            if !is_shortest(number) {
                let float = number.parse().expect("Rust parses every JSON number");
                float::write(float, self.out.instead(start, self.at));
            }
            return Ok(());
        }
        if whole - start - usize::from(is_negative) > MAX_INTEGER_DIGITS {
            return Err(JsonError::TooManyDigits);
        }
        if number == "-0" {
            self.out.leave_out(start, self.at - 1);
        }
        Ok(())
    }
}

/// Returns true only if Python writes the float with exactly these characters. The result is false for some
/// texts that Python would write.
///
/// A number with at most [`DISTINCT_DIGITS`] digits shares its float with no other number that short. So
/// Python writes the same digits, unless the number ends with an unnecessary zero. Numbers that Python would
/// write with an exponent are excluded too.
fn is_shortest(number: &str) -> bool {
    let Some((whole, fraction)) = number.split_once('.') else { return false };
    let is_decimal = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let has_added_zero = fraction.ends_with('0') && fraction != "0";
    is_decimal
        && whole.len() + fraction.len() <= DISTINCT_DIGITS
        && !has_added_zero
        && !fraction.starts_with("000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::{Credentials, canonical_json};

    fn check(text: &str, expected: &str) {
        assert_eq!(canonical_json(text, Credentials::Kept).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn integers_keep_all_their_digits() {
        check("-0", "0");
        check("[0,-1,10]", "[0,-1,10]");
        check("123456789012345678901234567890", "123456789012345678901234567890");
        let longest = "9".repeat(MAX_INTEGER_DIGITS);
        check(&longest, &longest);
        check(&format!("-{longest}"), &format!("-{longest}"));
    }

    #[test]
    fn an_integer_that_python_refuses_is_refused() {
        let long = "1".repeat(MAX_INTEGER_DIGITS + 1);
        for text in [long.clone(), format!("[-{long}]")] {
            assert_eq!(canonical_json(&text, Credentials::Kept), Err(JsonError::TooManyDigits));
        }
        check(&format!("{long}.0e-4300"), "1.1111111111111112");
    }

    #[test]
    fn invalid_numbers_are_refused() {
        for text in [
            "01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "-", "--1", "-NaN", "0x1", "1_0", "-01",
            "1.5.5",
        ] {
            assert!(canonical_json(text, Credentials::Kept).is_err(), "{text}");
        }
    }

    #[test]
    fn a_float_that_is_copied_is_the_one_that_python_writes() {
        for (whole, fraction) in
            [(0, 0), (0, 1), (0, 10), (1, 5), (12_345, 25), (0, 999), (99_999_999, 1)]
        {
            for width in 1..16 {
                for sign in ["", "-"] {
                    let text = format!("{sign}{whole}.{fraction:0width$}");
                    let mut written = String::new();
                    float::write(text.parse().unwrap(), &mut written);
                    assert!(!is_shortest(&text) || written == text, "{text} {written}");
                }
            }
        }
        assert!(is_shortest("1504642719.23539") && is_shortest("1.5") && is_shortest("-0.0"));
    }
}
