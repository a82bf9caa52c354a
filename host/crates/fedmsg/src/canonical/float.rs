//! Writes a float as Python's `repr` does.
//!
//! Python writes the fewest digits that are read back as the same float. If several numbers with that few
//! digits are read back as the float, Python writes the number nearest to the float. If two are equally near,
//! Python writes the one with the even last digit. The crate zmij guarantees this; Rust's own formatting does
//! not. The position of the point and the form of the exponent are Python's (CPython, `Python/pystrtod.c`,
//! format code `r`).

use std::iter::repeat_n;

/// Appends a float. Floats from 1e-4 to below 1e16 have no exponent.
pub(super) fn write(number: f64, out: &mut String) {
    if !number.is_finite() {
        let name = match (number.is_nan(), number > 0.0) {
            (true, _) => "NaN",
            (false, true) => "Infinity",
            (false, false) => "-Infinity",
        };
        return out.push_str(name);
    }
    if number.is_sign_negative() {
        out.push('-');
    }
    if number == 0.0 {
        return out.push_str("0.0");
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, point) = decimal(buffer.format_finite(number.abs()));
    match point {
        -3..=0 => {
            out.push_str("0.");
            out.extend(repeat_n('0', point.unsigned_abs() as usize));
            out.push_str(&digits);
        }
        1..=16 => {
            let whole = digits.len().min(point as usize);
            out.push_str(&digits[..whole]);
            out.extend(repeat_n('0', point as usize - whole));
            out.push('.');
            out.push_str(if whole < digits.len() { &digits[whole..] } else { "0" });
        }
        _ => {
            out.push_str(&digits[..1]);
            if digits.len() > 1 {
                out.push('.');
                out.push_str(&digits[1..]);
            }
            let exponent = point - 1;
            let sign = if exponent < 0 { '-' } else { '+' };
            out.push_str(&format!("e{sign}{:02}", exponent.abs()));
        }
    }
}

/// Returns the digits of a positive number without leading and trailing zeros, and the position of the
/// decimal point in these digits. The position can be negative or beyond the last digit.
fn decimal(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let digits = all.trim_start_matches('0');
    let zeros = all.len() - digits.len();
    (digits.trim_end_matches('0').to_owned(), whole.len() as i32 - zeros as i32 + exponent)
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
        check("1200.0", "1200.0");
        check("0.5", "0.5");
    }

    #[test]
    fn of_two_equally_near_numbers_the_even_one_is_written() {
        check("694997373507630.25", "694997373507630.2");
        check("-628670128374307.25", "-628670128374307.2");
        check("694997373507630.75", "694997373507630.8");
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
    fn numbers_that_are_not_finite_have_names() {
        check("[NaN,Infinity,-Infinity]", "[NaN,Infinity,-Infinity]");
        check("1E400", "Infinity");
        check("-1e999999999999", "-Infinity");
        check("1e-400", "0.0");
        check("-1e-400", "-0.0");
    }
}
