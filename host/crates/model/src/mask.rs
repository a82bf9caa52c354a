//! A mask, which removes the secrets of a task from the records of its runs.
//!
//! The mask finds the value of a secret, each long line of the value, and the value as JSON, Python, a shell, a
//! URL or base64 write it. It also finds every fragment of at least [`FRAGMENT`] bytes of these texts. So it does
//! not matter where somebody cut or wrapped a text before it was masked. It protects against accidents only: a task
//! that wants to disclose a secret can encode the secret in another way.

use std::collections::{BTreeMap, HashSet};

/// The text that replaces a secret.
const MARK: &str = "[secret]";
/// The minimum length of a line that is masked on its own, in bytes. Lines are masked because some secrets,
/// such as private keys, have several.
const LONG_LINE: usize = 10;
/// The length from which a fragment of a secret is masked, in bytes.
const FRAGMENT: usize = 8;
/// The minimum number of different letters and digits in such a fragment. With fewer, ordinary text would be
/// masked, for example the indentation of a secret with several lines.
const TELLING: usize = 4;
/// A fragment of many secrets that is not masked on its own.
const SCHEME: &[u8; FRAGMENT] = b"https://";

/// The secrets of a task, to be masked in all records of its runs.
#[derive(Clone, Default)]
pub struct Mask {
    /// The name of a secret and a text to find, for each way in which the secret can be written. The longest
    /// text comes first.
    patterns: Vec<(String, String)>,
    fragments: HashSet<[u8; FRAGMENT]>,
    /// Fragments that are longer because some of their characters are escaped, by their length in bytes.
    escaped: BTreeMap<usize, HashSet<Vec<u8>>>,
}

impl Mask {
    /// The minimum length of a secret, in bytes. A shorter text is not masked, because it occurs in ordinary
    /// text.
    pub const MIN_BYTES: usize = 6;

    /// Makes a mask for these secrets, given by name.
    pub fn new(secrets: &BTreeMap<String, String>) -> Self {
        let mut patterns = Vec::new();
        let mut escaped = BTreeMap::<usize, HashSet<Vec<u8>>>::new();
        for (name, secret) in secrets {
            for fragment in escaped_fragments(secret) {
                escaped.entry(fragment.len()).or_default().insert(fragment.into_bytes());
            }
            let lines = secret.lines().filter(|line| line.len() >= LONG_LINE).map(str::to_owned);
            let forms = written(secret).into_iter().chain(lines);
            let forms = forms.filter(|form| form.len() >= Self::MIN_BYTES);
            patterns.extend(forms.map(|form| (name.clone(), form)));
        }
        patterns.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        patterns.dedup_by(|(_, a), (_, b)| a == b);
        let fragments = patterns.iter().flat_map(|(_, pattern)| fragments(pattern)).collect();
        Self { patterns, fragments, escaped }
    }

    /// Returns the text with every secret replaced.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (_, pattern) in &self.patterns {
            if text.contains(pattern.as_str()) {
                text = text.replace(pattern.as_str(), MARK);
            }
        }
        self.without_fragments(text)
    }

    /// Replaces each part of a text that consists of fragments.
    fn without_fragments(&self, text: String) -> String {
        let bytes = text.as_bytes();
        let is_fragment = |window: &[u8]| {
            <&[u8; FRAGMENT]>::try_from(window).is_ok_and(|window| self.fragments.contains(window))
        };
        let found = (0..bytes.len())
            .filter(|&start| bytes.get(start..start + FRAGMENT).is_some_and(is_fragment));
        let mut found: Vec<_> = found.map(|start| (start, start + FRAGMENT)).collect();
        for (length, escaped) in &self.escaped {
            let windows = bytes.windows(*length).enumerate();
            let windows = windows.filter(|(_, window)| escaped.contains(*window));
            found.extend(windows.map(|(start, _)| (start, start + length)));
        }
        found.sort_unstable();
        let mut parts: Vec<(usize, usize)> = Vec::new();
        for (start, end) in found {
            match parts.last_mut() {
                Some((_, last)) if *last >= start => *last = end.max(*last),
                _ => parts.push((start, end)),
            }
        }
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        for (start, end) in parts {
            let (start, end) = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
            masked.push_str(&text[done..start.max(done)]);
            masked.push_str(MARK);
            done = end;
        }
        masked.push_str(&text[done..]);
        masked
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

/// Returns the fragments of a text that tell something about it.
fn fragments(text: &str) -> impl Iterator<Item = [u8; FRAGMENT]> {
    let windows = text.as_bytes().windows(FRAGMENT);
    let windows = windows.filter_map(|window| <[u8; FRAGMENT]>::try_from(window).ok());
    windows.filter(|window| is_telling(window) && window != SCHEME)
}

/// Returns the fragments of a secret that tell something about it, in each form in which they are longer.
fn escaped_fragments(secret: &str) -> impl Iterator<Item = String> {
    secret.char_indices().flat_map(|(start, _)| {
        let end = secret.ceil_char_boundary(start + FRAGMENT);
        let fragment = &secret[start..end];
        let is_whole = fragment.len() >= FRAGMENT && is_telling(fragment.as_bytes());
        let forms = is_whole.then(|| escaped(fragment)).into_iter().flatten();
        forms.filter(|form| form.len() > FRAGMENT)
    })
}

fn is_telling(fragment: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let mut letters: Vec<u8> = fragment.iter().copied().filter(is_letter).collect();
    letters.sort_unstable();
    letters.dedup();
    letters.len() >= TELLING
}

/// Returns a secret as it is, as [`escaped`], and in base64.
fn written(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    forms.extend(escaped(secret));
    forms.extend(base64(secret));
    forms
}

/// Returns a text as it appears between the quotes of JSON, of Python's `repr`, and of a shell, and in a URL.
fn escaped(secret: &str) -> [String; 5] {
    let json = serde_json::Value::from(secret).to_string();
    let json = json[1..json.len() - 1].to_owned();
    // Python uses double quotes only for strings that contain single quotes and no double quotes.
    let python = json.replace("\\\"", "\"");
    let other_python = python.replace('\'', "\\'");
    let shell = secret.replace('\'', r#"'"'"'"#);
    [json, python, other_python, shell, percent(secret)]
}

/// Returns a text as a URL writes it: every byte that is not an unreserved character is escaped (RFC 3986).
fn percent(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Returns the base64 texts of a secret within a longer text: for each position of its first byte in a group of
/// three bytes, in both alphabets (RFC 4648). The characters that also depend on the neighbouring bytes are left
/// out.
fn base64(secret: &str) -> Vec<String> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = secret.as_bytes();
    let mut texts = Vec::new();
    for offset in 0..3 {
        // The bits of the secret that form whole characters.
        let first = (3 - offset) % 3;
        let whole = bytes.get(first..).unwrap_or_default();
        let whole = &whole[..whole.len() / 3 * 3];
        let standard: String = whole
            .chunks_exact(3)
            .flat_map(|group| {
                let bits =
                    u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
                [18, 12, 6, 0].map(|shift| char::from(STANDARD[(bits >> shift & 63) as usize]))
            })
            .collect();
        texts.push(standard.replace('+', "-").replace('/', "_"));
        texts.push(standard);
    }
    texts
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
    fn a_fragment_is_replaced_also_if_its_characters_are_escaped() {
        let mask = mask(&[("a", r#"x0j/'\j5F""#)]);
        for (text, expected) in [
            (r"0j/'\\j5F rest", "[secret] rest"),
            (r"cut 0j/\'\\j5F", "cut [secret]"),
            ("0j%2F%27%5Cj5F%22 rest", "[secret] rest"),
            (r"0j/'\\j5", r"0j/'\\j5"),
        ] {
            assert_eq!(mask.text(text), expected);
        }
    }

    #[test]
    fn a_fragment_is_replaced_wherever_the_text_was_cut_or_wrapped() {
        let mask = mask(&[("a", "Tr0ub4dor&3-correct-horse"), ("b", "https://u:p4ss-w0rd@host/")]);
        assert_eq!(mask.text("…4dor&3-correct-ho"), "…[secret]");
        assert_eq!(
            mask.text("[WARNING]: Tr0ub4dor&3-co\nrrect-horse is bad"),
            "[WARNING]: [secret]\n[secret] is bad"
        );
        assert_eq!(mask.text("ä4dor&3-cä"), "ä[secret]ä");
        assert_eq!(mask.text("see https://example.org"), "see https://example.org");
        assert_eq!(mask.text("VHIwdWI0ZG9yJjMtY29ycmVjdC1ob3JzZQ=="), "[secret]ZQ==");
        assert_eq!(mask.text("token=Tr0ub4dor%263-correct-horse&x"), "token=[secret]&x");
    }

    /// Cuts and wraps 100,000 random texts with secrets in all forms. No eight bytes of a form may remain.
    #[test]
    fn no_eight_bytes_of_a_secret_remain_after_any_cut() {
        let alphabet: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
        let mut all = alphabet.clone();
        all.extend("äß '\"\\$&%/+=-_.:\n".chars());
        // Each run has the same cases.
        let mut random = fastrand::Rng::with_seed(7);
        let text_of = |random: &mut fastrand::Rng, alphabet: &[char], length: usize| -> String {
            (0..length).map(|_| alphabet[random.usize(..alphabet.len())]).collect()
        };
        let mut found = 0;
        for case in 0..10_000 {
            let length = random.usize(8..68);
            let secret = text_of(&mut random, if case % 2 == 0 { &alphabet } else { &all }, length);
            let mask = mask(&[("a", &secret)]);
            let forms = written(&secret);
            let secrets: HashSet<_> = forms.iter().flat_map(|form| fragments(form)).collect();
            for _ in 0..10 {
                let form = &forms[random.usize(..forms.len())];
                let (before, after) = (random.usize(..30), random.usize(..30));
                let mut text: Vec<char> = text_of(&mut random, &all, before).chars().collect();
                text.extend(form.chars());
                text.extend(text_of(&mut random, &all, after).chars());
                let start = random.usize(..text.len());
                let end = random.usize(start..=text.len());
                let wrap = random.usize(8..88);
                let lines: Vec<String> =
                    text[start..end].chunks(wrap).map(|line| line.iter().collect()).collect();
                let cut = lines.join("\n");
                let masked = mask.text(&cut);
                found += usize::from(masked != cut);
                let mut windows = masked.as_bytes().windows(FRAGMENT);
                let leaks = windows.any(|window| secrets.contains(window));
                assert!(!leaks, "case {case}: {secret:?} in {masked:?}");
            }
        }
        assert!(found > 50_000, "{found}");
    }

    #[test]
    fn without_secrets_nothing_changes() {
        assert_eq!(Mask::default().cut_text("text"), "text");
    }
}
