//! PEM: base64 text between a line `-----BEGIN LABEL-----` and a line `-----END LABEL-----`.

use crate::base64;

const DASHES: &str = "-----";

/// Returns the content of the first PEM block of a text. The block must have one of `labels`.
///
/// Text outside the blocks is ignored, because openssl writes text before a certificate. Blocks after the
/// first one are ignored too. A first block with another label is an error. It is not skipped, because then
/// two readers could use different blocks as the certificate.
pub(crate) fn first(text: &[u8], labels: &[&str]) -> Result<Vec<u8>, &'static str> {
    let text = str::from_utf8(text).map_err(|_| "it is not text")?;
    let mut lines = text.lines().map(str::trim_end);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN "));
    let label = label.and_then(|rest| rest.strip_suffix(DASHES)).ok_or("it has no PEM block")?;
    if !labels.contains(&label) {
        return Err("its first PEM block has another label");
    }
    let mut content = String::with_capacity(text.len());
    for line in lines {
        if let Some(rest) = line.strip_prefix("-----END ") {
            if rest.strip_suffix(DASHES) != Some(label) {
                return Err("its PEM block ends with another label");
            }
            return base64::decode(content.as_bytes()).map_err(|_| "its PEM block is not base64");
        }
        if !line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)) {
            return Err("its PEM block is not base64");
        }
        content.push_str(line);
    }
    Err("its PEM block has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = first(text.as_bytes(), &["CERTIFICATE"]);
        assert_eq!(found.as_deref(), expected.map(str::as_bytes).as_ref().copied(), "{text}");
    }

    const GOOD: &str = "-----BEGIN CERTIFICATE-----\nZm9v\nYmFy\n-----END CERTIFICATE-----\n";

    #[test]
    fn the_first_block_is_read() {
        check(GOOD, Ok("foobar"));
        check(&GOOD.replace('\n', "\r\n"), Ok("foobar"));
        check(GOOD.trim_end(), Ok("foobar"));
        check(
            &format!("Certificate:\n    Data: ä\n{GOOD}{}", GOOD.replace("Zm9v", "")),
            Ok("foobar"),
        );
    }

    #[test]
    fn a_first_block_with_another_label_is_refused() {
        let trusted = GOOD.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        check(&(trusted + GOOD), Err("its first PEM block has another label"));
    }

    #[test]
    fn a_text_without_a_valid_block_is_refused() {
        check("", Err("it has no PEM block"));
        check("Zm9v", Err("it has no PEM block"));
        check(&GOOD.replace("-----BEGIN", " -----BEGIN"), Err("it has no PEM block"));
        check(&GOOD.replace("Zm9v", "Zm9v!"), Err("its PEM block is not base64"));
        check(&GOOD.replace("Zm9v", "Zm9"), Err("its PEM block is not base64"));
        check(
            &GOOD.replace("END CERTIFICATE", "END X"),
            Err("its PEM block ends with another label"),
        );
        check("-----BEGIN CERTIFICATE-----\nZm9v\n", Err("its PEM block has no end"));
        assert!(first(b"\xff", &["CERTIFICATE"]).is_err());
    }
}
