//! Finds what is the same in the reasons of failures of one kind.

/// The number of characters of a reason that are compared.
const MAX_CHARS: usize = 300;

/// Returns a reason with `…` in place of what usually differs between two failures of the same kind: what is in quotation
/// marks, paths, and words with a digit, except numbers of up to three digits, such as an exit status. Only the first 300
/// characters count.
pub fn normalised_reason(reason: &str) -> String {
    let (mut text, mut word) = (String::new(), String::new());
    let mut characters = reason.chars().take(MAX_CHARS);
    while let Some(character) = characters.next() {
        let is_in_word =
            character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '/' | ':' | '@');
        if is_in_word {
            word.push(character);
            continue;
        }
        push_word(&mut text, &mut word);
        text.push(character);
        let ends = |other: &char| *other == character;
        if matches!(character, '`' | '"') && characters.clone().any(|other| ends(&other)) {
            characters.by_ref().find(ends);
            text.push('…');
            text.push(character);
        }
    }
    push_word(&mut text, &mut word);
    text
}

fn push_word(text: &mut String, word: &mut String) {
    let end = word.trim_end_matches(['.', ':', '-']).len();
    let (stem, rest) = word.split_at(end);
    let is_number = stem.len() <= 3 && stem.chars().all(|character| character.is_ascii_digit());
    let differs =
        stem.contains(|c: char| c.is_ascii_digit()) && !is_number || stem.matches('/').count() > 1;
    text.push_str(if differs { "…" } else { stem });
    text.push_str(rest);
    word.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reason: &str, expected: &str) {
        assert_eq!(normalised_reason(reason), expected);
    }

    #[test]
    fn what_differs_between_failures_of_one_kind_is_left_out() {
        check("exit status 2", "exit status 2");
        check(
            "exit status 2: cannot read /var/lib/x/y.conf: no such file",
            "exit status 2: cannot read …: no such file",
        );
        check("build 21686531 of `bash` failed.", "build … of `…` failed.");
        check("host web12.example.org: timed out after 30.5s", "host …: timed out after …");
        check("id 0b3f5b3e-6c0c-4b6e-8d1e-5c2a4b0b9f6a is gone", "id … is gone");
        check("no \"quoted text", "no \"quoted text");
        check("either/or is no path", "either/or is no path");
        check("äöü – 日本", "äöü – 日本");
        check("", "");
    }
}
