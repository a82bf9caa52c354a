//! Tests that the TOML examples in the documents are valid.

use std::fs;

use loopabull_host::config::Config;
use loopabull_model::Manifest;

use crate::test_host::repository;

/// Returns the TOML blocks of a document.
fn examples(document: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("host/docs").join(document)).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_examples_of_the_manifest_are_valid() {
    let examples = examples("manifest.md");
    assert_eq!(examples.len(), 3);
    for example in examples {
        Manifest::parse(&example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}

#[test]
fn the_examples_of_the_configuration_are_valid() {
    let examples = examples("configuration.md");
    assert_eq!(examples.len(), 3);
    for example in examples {
        let config: Config =
            toml::from_str(&example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        config.validate().unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}
