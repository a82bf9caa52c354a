//! Checks of the template for `loopabull-host tasks new`: placeholders, file list, build script and profile.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};

const PLACEHOLDERS: &[&str] = &["name", "ident", "topic", "sdk", "title"];

fn template() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("template")
}

/// Returns the path of each file of the template, relative to the template, with the text of the file.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![template()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(template()).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(path).unwrap()));
        }
    }
    files
}

#[test]
fn exactly_the_files_ending_in_in_have_placeholders() {
    for (name, text) in files().iter().filter(|(name, _)| name != "README.md") {
        let used: Vec<&str> = text
            .split("{{")
            .skip(1)
            .filter_map(|rest| rest.split_once("}}").map(|(placeholder, _)| placeholder))
            .collect();
        assert!(used.iter().all(|used| PLACEHOLDERS.contains(used)), "{name}: {used:?}");
        assert_eq!(!used.is_empty(), name.ends_with(".in"), "{name}: {used:?}");
    }
}

#[test]
fn the_readme_lists_every_file() {
    let readme = fs::read_to_string(template().join("README.md")).unwrap();
    for (name, _) in files().iter().filter(|(name, _)| name != "README.md") {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn all_tasks_have_the_build_script_of_the_template() {
    let ours = fs::read_to_string(template().join("build.rs")).unwrap();
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tasks");
    let mut compared = 0;
    for entry in fs::read_dir(tasks).unwrap() {
        let theirs = entry.unwrap().path().join("build.rs");
        if theirs.exists() {
            assert_eq!(fs::read_to_string(&theirs).unwrap(), ours, "{}", theirs.display());
            compared += 1;
        }
    }
    assert!(compared >= 5);
}

#[test]
fn the_release_profile_is_that_of_the_example_tasks() {
    let profile = |path: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let text = fs::read_to_string(path).unwrap();
        text.split_once("[profile.release]").unwrap().1.trim().to_owned()
    };
    assert_eq!(profile("template/Cargo.toml.in"), profile("../tasks/Cargo.toml"));
}
