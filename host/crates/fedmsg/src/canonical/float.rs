//! A float as Python's `repr` writes it.
//!
//! Both take the shortest digits that read back as the same number; they differ in where the point
//! goes and in how an exponent looks (CPython, `Python/pystrtod.c`, format code `r`).

use std::io::Write;

/// Appends a float. Without an exponent from 1e-4 up to below 1e16.
pub(super) fn write(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        let name: &[u8] = match (number.is_nan(), number > 0.0) {
            (true, _) => b"NaN",
            (false, true) => b"Infinity",
            (false, false) => b"-Infinity",
        };
        return out.extend_from_slice(name);
    }
    let start = out.len();
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        // Rust's `{:?}` has the same digits and the point in the same place in this range.
        return write!(out, "{number:?}").expect("a vector takes everything");
    }
    write!(out, "{number:e}").expect("a vector takes everything");
    // Rust writes `1e-5` and `1e16`, Python `1e-05` and `1e+16`.
    let mark = out[start..].iter().rposition(|&byte| byte == b'e');
    let mark = start + mark.expect("the format has an exponent");
    let exponent = out.split_off(mark + 1);
    let (sign, digits) = match exponent.strip_prefix(b"-") {
        Some(digits) => (b'-', digits),
        None => (b'+', exponent.as_slice()),
    };
    out.push(sign);
    if digits.len() < 2 {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use crate::canonical::{Credentials, canonical_json};

    fn check(text: &str, expected: &str) {
        assert_eq!(canonical_json(text, Credentials::Kept).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn a_float_keeps_its_point() {
        check("1.0", "1.0");
        check("-0.0", "-0.0");
        check("1504642719.23539", "1504642719.23539");
        check("0.1000000000000000055", "0.1");
        check("123456789012345.678", "123456789012345.67");
    }

    #[test]
    fn an_exponent_is_used_from_1e16_and_below_1e_4() {
        check("1e5", "100000.0");
        check("9999999999999998.0", "9999999999999998.0");
        check("1e16", "1e+16");
        check("1E+22", "1e+22");
        check("100000000000000000000.0", "1e+20");
        check("0.0001", "0.0001");
        check("1e-5", "1e-05");
        check("0.00001234", "1.234e-05");
        check("-1.5e-300", "-1.5e-300");
        check("5e-324", "5e-324");
        check("1.7976931348623157e308", "1.7976931348623157e+308");
    }

    #[test]
    fn what_is_not_finite_has_a_name() {
        check("[NaN,Infinity,-Infinity]", "[NaN,Infinity,-Infinity]");
        check("1E400", "Infinity");
        check("-1e999999999999", "-Infinity");
        check("1e-400", "0.0");
        check("-1e-400", "-0.0");
    }
}
