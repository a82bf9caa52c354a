//! Reads numbers: integers without end, and floats.

use super::parser::Parser;
use super::{JsonError, MAX_INTEGER_DIGITS, Value};

impl<'a> Parser<'a> {
    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Reads a number, or what else begins with a minus.
    pub(super) fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        let is_negative = self.peek() == Some(b'-');
        self.at += usize::from(is_negative);
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => _ = self.digits(),
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
            let float = number.parse().expect("the grammar of JSON's floats is within Rust's");
            return Ok(Value::Float(float));
        }
        if whole - start - usize::from(is_negative) > MAX_INTEGER_DIGITS {
            return Err(JsonError::TooManyDigits);
        }
        Ok(Value::Integer(if number == "-0" { "0" } else { number }))
    }
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
    fn an_integer_that_python_would_not_read_is_refused() {
        let long = "1".repeat(MAX_INTEGER_DIGITS + 1);
        for text in [long.clone(), format!("[-{long}]")] {
            assert_eq!(canonical_json(&text, Credentials::Kept), Err(JsonError::TooManyDigits));
        }
        check(&format!("{long}.0e-4300"), "1.1111111111111112");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "-", "--1", "-NaN", "0x1", "1_0", "-01",
            "1.5.5",
        ] {
            assert!(canonical_json(text, Credentials::Kept).is_err(), "{text}");
        }
    }
}
