//! The addresses of pages.

use loopabull_model::Run;

use crate::journal::Place;

/// Returns the address of a run.
pub(super) fn path(run: &Run) -> String {
    format!("/runs/{}", encoded(run.id.as_str()))
}

/// Returns the address of a search.
pub(super) fn search(text: &str, before: Option<Place>) -> String {
    let before = before.map_or(String::new(), |place| format!("&before={place}"));
    format!("/runs?q={}{before}", encoded(text))
}

/// Encodes a text for a URL.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_keeps_every_character_of_a_search() {
        let place = "17-4".parse().unwrap();
        assert_eq!(
            search("task:a+b \"ä&\"", Some(place)),
            "/runs?q=task:a%2Bb%20%22%C3%A4%26%22&before=17-4"
        );
        assert_eq!(search("", None), "/runs?q=");
    }
}
