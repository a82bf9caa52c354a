//! The addresses of pages.

use loopabull_model::Run;

use crate::journal::Place;
use crate::percent::encoded;

/// Returns the address of a run.
pub(super) fn path(run: &Run) -> String {
    format!("/runs/{}", encoded(run.id.as_str()))
}

/// Returns the address of a search.
pub(super) fn search(text: &str, before: Option<Place>) -> String {
    let before = before.map_or(String::new(), |place| format!("&before={place}"));
    format!("/runs?q={}{before}", encoded(text))
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
