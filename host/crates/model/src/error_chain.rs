//! An error together with its sources, as one line.

use std::error::Error;

/// Returns the texts of an error and of its sources on one line, joined by `: `.
pub fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `a`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn an_error_is_followed_by_its_sources() {
        let error = Outer(std::io::Error::other("the disk is full"));
        assert_eq!(chain(&error), "cannot open `a`: the disk is full");
        assert_eq!(chain(error), "cannot open `a`: the disk is full");
    }
}
