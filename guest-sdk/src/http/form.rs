//! The encoding `application/x-www-form-urlencoded` of forms, as the URL standard defines it.

use super::percent::escaped;

/// Encodes the fields of a form as a browser does.
pub(super) fn encode<K: AsRef<str>, V: AsRef<str>>(fields: &[(K, V)]) -> String {
    let mut form = String::new();
    for (name, value) in fields {
        if !form.is_empty() {
            form.push('&');
        }
        push(&mut form, name.as_ref());
        form.push('=');
        push(&mut form, value.as_ref());
    }
    form
}

fn push(form: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' ' => form.push('+'),
            b'*' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                form.push(byte.into());
            }
            _ => form.extend(escaped(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    fn check(fields: &[(&str, &str)], expected: &str) {
        assert_eq!(super::encode(fields), expected);
    }

    #[test]
    fn the_order_of_fields_is_kept() {
        check(&[("b", "1"), ("a", ""), ("b", "2")], "b=1&a=&b=2");
        check(&[], "");
    }

    #[test]
    fn reserved_characters_are_escaped() {
        check(&[("a&b", "c=d e+f/%")], "a%26b=c%3Dd+e%2Bf%2F%25");
    }

    #[test]
    fn non_ascii_text_is_escaped_byte_by_byte() {
        check(&[("ü", "*-._~")], "%C3%BC=*-._%7E");
    }
}
