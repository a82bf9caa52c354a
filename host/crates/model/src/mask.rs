//! A mask, which removes the secrets of a task from the records of its runs.
//!
//! The mask finds the value of a secret, each long line of the value, and the value as JSON, Python or a
//! shell write it. It protects against accidents only: a task that wants to disclose a secret can encode the
//! secret in another way.

use std::collections::BTreeMap;

/// The text that replaces a secret.
const MARK: &str = "[secret]";
/// The minimum length of a line that is masked on its own, in bytes. Lines are masked because some secrets,
/// such as private keys, have several.
const LONG_LINE: usize = 10;

/// The secrets of a task, to be masked in all records of its runs.
#[derive(Clone, Default)]
pub struct Mask {
    /// The name of a secret and a text to find, for each way in which the secret can be written. The longest
    /// text comes first.
    patterns: Vec<(String, String)>,
}

impl Mask {
    /// The minimum length of a secret, in bytes. A shorter text is not masked, because it occurs in ordinary
    /// text.
    pub const MIN_BYTES: usize = 6;

    /// Makes a mask for these secrets, given by name.
    pub fn new(secrets: &BTreeMap<String, String>) -> Self {
        let mut patterns = Vec::new();
        for (name, secret) in secrets {
            let lines = secret.lines().filter(|line| line.len() >= LONG_LINE).map(str::to_owned);
            let forms = written(secret).into_iter().chain(lines);
            let forms = forms.filter(|form| form.len() >= Self::MIN_BYTES);
            patterns.extend(forms.map(|form| (name.clone(), form)));
        }
        patterns.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup_by(|(_, a), (_, b)| a == b);
        Self { patterns }
    }

    /// Returns the text with every secret replaced.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (_, pattern) in &self.patterns {
            if text.contains(pattern.as_str()) {
                text = text.replace(pattern.as_str(), MARK);
            }
        }
        text
    }

    /// Returns a text that was cut at its end, with every secret replaced. If the text ends with two or more
    /// bytes of the beginning of a secret, these bytes are replaced too.
    pub fn cut_text(&self, text: &str) -> String {
        let mut text = self.text(text);
        let ends_with_start = |pattern: &String, text: &str| {
            let starts = pattern.char_indices().map(|(end, _)| &pattern[..end]);
            starts.filter(|start| start.len() >= 2 && text.ends_with(start)).map(str::len).max()
        };
        let longest =
            self.patterns.iter().filter_map(|(_, pattern)| ends_with_start(pattern, &text)).max();
        if let Some(length) = longest {
            text.truncate(text.len() - length);
            text.push_str(MARK);
        }
        text
    }

    /// Returns the name of a secret that these bytes contain.
    pub fn find(&self, bytes: &[u8]) -> Option<&str> {
        let holds =
            |pattern: &str| bytes.windows(pattern.len()).any(|window| window == pattern.as_bytes());
        self.patterns.iter().find(|(_, pattern)| holds(pattern)).map(|(name, _)| name.as_str())
    }
}

/// Returns a secret as it is, and as it appears between the quotes of JSON, of Python's `repr`, and of a
/// shell.
fn written(secret: &str) -> [String; 5] {
    let json = serde_json::Value::from(secret).to_string();
    let json = json[1..json.len() - 1].to_owned();
    // Python uses double quotes only for strings that contain single quotes and no double quotes.
    let python = json.replace("\\\"", "\"");
    let other_python = python.replace('\'', "\\'");
    let shell = secret.replace('\'', r#"'"'"'"#);
    [secret.to_owned(), json, python, other_python, shell]
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask of {} patterns", self.patterns.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[(&str, &str)]) -> Mask {
        let secrets = secrets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Mask::new(&secrets.collect())
    }

    #[test]
    fn a_secret_is_replaced_everywhere() {
        let mask = mask(&[("a", "hunter22"), ("b", "hunter22-longer")]);
        assert_eq!(mask.text("x hunter22 hunter22-longer"), "x [secret] [secret]");
        assert_eq!(mask.find(b"x=hunter22"), Some("a"));
        assert_eq!(mask.find(b"x"), None);
        assert!(!format!("{mask:?}").contains("hunter"));
    }

    #[test]
    fn json_forms_and_long_lines_are_found() {
        let mask = mask(&[("key", "-----BEGIN\nMIIEpAIBAAKCAQEA7\n\"quoted\"\n")]);
        assert_eq!(mask.text("got MIIEpAIBAAKCAQEA7 there"), "got [secret] there");
        assert_eq!(mask.text(r#""-----BEGIN\nMIIEpAIBAAKCAQEA7\n\"quoted\"\n""#), "\"[secret]\"");
    }

    #[test]
    fn the_forms_of_python_and_a_shell_are_found() {
        let mask = mask(&[("a", "pa'ss\"wo\\rd"), ("b", "crlf-secret\r\nmore-of-it")]);
        assert_eq!(mask.text(r#"['pa\'ss"wo\\rd']"#), "['[secret]']");
        assert_eq!(mask.text(r#""pa'ss\"wo\\rd""#), "\"[secret]\"");
        assert_eq!(mask.text(r#"'pa'"'"'ss"wo\rd'"#), "'[secret]'");
        assert_eq!(mask.text(r#"["crlf-secret", "more-of-it"]"#), r#"["[secret]", "[secret]"]"#);
    }

    #[test]
    fn the_beginning_of_a_secret_at_a_cut_is_replaced() {
        let mask = mask(&[("a", "hunter22")]);
        assert_eq!(mask.cut_text("password hunt"), "password [secret]");
        assert_eq!(mask.cut_text("password hunter22"), "password [secret]");
        assert_eq!(mask.cut_text("all well"), "all well");
    }

    #[test]
    fn without_secrets_nothing_changes() {
        assert_eq!(Mask::default().cut_text("text"), "text");
    }
}
