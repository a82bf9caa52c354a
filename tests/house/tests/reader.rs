//! Tests of the reader of imports, on small crates in which paths are written in every possible way.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;

use loopabull_house::Imports;

fn check(files: &[(&str, &str)], expected: &[&str], circles: usize) {
    let folder = std::env::temp_dir().join(format!("house-{}-{}", std::process::id(), files.len()));
    for (name, text) in files {
        let path = folder.join("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let imports = Imports::of(&folder);
    fs::remove_dir_all(&folder).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let found: Vec<_> =
        imports.all.iter().map(|i| format!("{} -> {}", shown(&i.from), shown(&i.to))).collect();
    assert_eq!(found, expected);
    assert_eq!(imports.circles().len(), circles);
}

#[test]
fn every_form_of_a_path_is_an_import() {
    check(
        &[
            ("lib.rs", "mod a; mod b; mod c; pub use b::Thing; fn f() { a::g() }"),
            ("a.rs", "use crate::Thing; pub fn g() { println!(\"{}\", crate::c::NUMBER) }"),
            ("b.rs", "pub struct Thing; #[cfg(test)] mod tests { use crate::a::g; }"),
            ("c.rs", "pub const NUMBER: u8 = 1;"),
        ],
        &["a.rs -> b.rs", "a.rs -> c.rs", "lib.rs -> a.rs", "lib.rs -> b.rs"],
        0,
    );
}

#[test]
fn a_child_that_takes_from_its_parent_makes_a_circle() {
    check(
        &[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; mod c; pub struct Front; fn f() { b::g() }"),
            ("a/b.rs", "use super::Front; pub fn g() {}"),
            ("a/c.rs", "fn h() { super::b::g() }"),
        ],
        &["a/b.rs -> a.rs", "a/c.rs -> a/b.rs", "a.rs -> a/b.rs"],
        1,
    );
}

#[test]
fn modules_inside_a_file_are_part_of_it() {
    check(
        &[
            ("lib.rs", "mod a; mod b { use crate::a::X; }"),
            ("a.rs", "pub struct X; mod inner { use super::X; } "),
            ("unused.rs", "use crate::a::X;"),
            ("main.rs", "fn main() {}"),
            ("other.rs", ""),
        ],
        &["lib.rs -> a.rs"],
        0,
    );
}
