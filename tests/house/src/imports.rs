//! Reads the imports between the files of one crate, and finds circles among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::module::{self, Module};
use crate::repository;
use crate::resolve::Resolver;

/// The use of an item of one file in another file of the same crate.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Import {
    pub from: PathBuf,
    pub to: PathBuf,
    /// The path as it is written in `from`, for example `super::table::integer`.
    pub path: String,
}

/// The imports of one crate. Paths are relative to its `src`.
#[derive(Debug, Default)]
pub struct Imports {
    /// One import for each pair of files.
    pub all: Vec<Import>,
}

impl Imports {
    /// Reads the imports of the crate in this folder: those of its library and those of its binary.
    ///
    /// # Panics
    ///
    /// If a file cannot be read or parsed.
    pub fn of(folder: &Path) -> Self {
        let source = folder.join("src");
        let roots = ["lib.rs", "main.rs"].map(|name| source.join(name));
        let mut all = BTreeMap::new();
        for root in roots.iter().filter(|root| root.is_file()) {
            let modules = module::modules(root);
            for import in imports(&source, &modules) {
                all.entry((import.from.clone(), import.to.clone())).or_insert(import);
            }
        }
        Self { all: all.into_values().collect() }
    }

    /// Returns the import circles. A circle is a group of files in which every file imports every other file,
    /// directly or through other files.
    pub fn circles(&self) -> Vec<BTreeSet<&Path>> {
        let mut reached = BTreeMap::<&Path, BTreeSet<&Path>>::new();
        for import in &self.all {
            reached.entry(&import.from).or_default().insert(&import.to);
        }
        loop {
            let mut grown = reached.clone();
            for (from, targets) in &reached {
                let further = targets.iter().filter_map(|target| reached.get(target)).flatten();
                grown.get_mut(from).expect("the clone has the same keys").extend(further);
            }
            if grown == reached {
                break;
            }
            reached = grown;
        }
        let leads = |from: &Path, to: &Path| reached.get(from).is_some_and(|all| all.contains(to));
        let mut circles = BTreeSet::new();
        for from in reached.keys().filter(|from| leads(from, from)) {
            let others = reached.keys().filter(|other| leads(from, other) && leads(other, from));
            circles.insert(others.copied().collect::<BTreeSet<_>>());
        }
        circles.into_iter().collect()
    }

    /// Returns the imports between the files of a circle, one per line.
    pub fn describe(&self, circle: &BTreeSet<&Path>) -> String {
        let is_inside = |path: &PathBuf| circle.contains(path.as_path());
        let inside = self.all.iter().filter(|i| is_inside(&i.from) && is_inside(&i.to));
        inside
            .map(|i| format!("  {} -> {} ({})\n", i.from.display(), i.to.display(), i.path))
            .collect()
    }
}

fn imports(source: &Path, modules: &[Module]) -> Vec<Import> {
    let resolver = Resolver::new(modules);
    let relative = |path: &Path| path.strip_prefix(source).unwrap_or(path).to_owned();
    let mut imports = Vec::new();
    for module in modules {
        for path in &module.paths {
            let Some(target) = resolver.resolve(module, path) else { continue };
            if target.file != module.file {
                let (from, to) = (relative(&module.file), relative(&target.file));
                imports.push(Import { from, to, path: path.join("::") });
            }
        }
    }
    imports
}

/// Returns the text of the code block in ARCHITECTURE.md whose opening fence is followed by this word.
///
/// # Panics
///
/// If ARCHITECTURE.md has no such block.
pub fn architecture_block(word: &str) -> String {
    let text = repository::read(&repository::root().join("ARCHITECTURE.md"));
    let block =
        text.split(&format!("```{word}\n")).nth(1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("ARCHITECTURE.md has no block `{word}`")).to_owned()
}
