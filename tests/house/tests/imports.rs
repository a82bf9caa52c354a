//! Checks that imports point one way: no circle between the files of a crate, and no import against the order
//! that ARCHITECTURE.md declares.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use loopabull_house::{Imports, architecture_block, crates, root};

/// Returns the line number of each name in a block of ARCHITECTURE.md, counted from the top.
fn layers(block: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for (line, names) in architecture_block(block).lines().enumerate() {
        for name in names.split_whitespace() {
            layers.insert(name.to_owned(), line);
        }
    }
    assert!(layers.len() > 5, "the block `{block}` names only {} parts", layers.len());
    layers
}

#[test]
fn no_crate_has_an_import_circle() {
    let mut report = String::new();
    let mut count = 0;
    for folder in crates() {
        let imports = Imports::of(&folder);
        count += imports.all.len();
        for circle in imports.circles() {
            let name = folder.strip_prefix(root()).unwrap().display().to_string();
            report += &format!("{name}:\n{}", imports.describe(&circle));
        }
    }
    assert!(count > 300, "only {count} imports were found");
    assert!(report.is_empty(), "import circles:\n{report}");
}

#[test]
fn the_parts_of_the_host_import_downwards_only() {
    let layers = layers("layers-of-the-host");
    let part = |path: &Path| {
        let first = path.iter().next().unwrap().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    };
    let mut wrong = Vec::new();
    for import in Imports::of(&root().join("host")).all {
        let (from, to) = (part(&import.from), part(&import.to));
        let line = |name: &str| {
            let line = layers.get(name);
            *line.unwrap_or_else(|| panic!("ARCHITECTURE.md has no layer for `{name}`"))
        };
        // `lib.rs` is a table of contents, which may name every part.
        if from != "lib" && from != to && line(&from) >= line(&to) {
            wrong.push(format!("{} -> {}", import.from.display(), import.to.display()));
        }
    }
    assert!(wrong.is_empty(), "imports against the order in ARCHITECTURE.md: {wrong:#?}");
}

#[test]
fn the_crates_depend_downwards_only() {
    let layers = layers("layers-of-the-crates");
    let prefix = "loopabull-";
    let mut wrong = Vec::new();
    let mut count = 0;
    for folder in crates() {
        let text = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: Vec<_> = text.lines().map(str::trim).collect();
        let name = manifest.iter().find_map(|line| line.strip_prefix("name = \"")).unwrap();
        let Some(name) = name.trim_end_matches('"').strip_prefix(prefix) else { continue };
        let Some(line) = layers.get(name) else { continue };
        let dependencies = manifest.iter().skip_while(|line| **line != "[dependencies]").skip(1);
        for dependency in dependencies.take_while(|line| !line.starts_with('[')) {
            let Some(other) = dependency.strip_prefix(prefix) else { continue };
            let other = other.split(['.', ' ', '=']).next().unwrap();
            count += 1;
            if layers.get(other).is_none_or(|below| below <= line) {
                wrong.push(format!("{name} -> {other}"));
            }
        }
    }
    assert!(count > 10, "only {count} dependencies were found");
    assert!(wrong.is_empty(), "imports against the order in ARCHITECTURE.md: {wrong:#?}");
}
