//! Reads one module of a crate: its file, its child modules, and the paths that its code names.
//!
//! Code under `#[cfg(test)]` is ignored, because tests may import anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

use crate::repository::read;

/// A module of a crate.
pub(crate) struct Module {
    /// The names of the modules from the crate root down to this module. Empty for the root itself.
    pub(crate) name: Vec<String>,
    pub(crate) file: PathBuf,
    /// The paths in the code, as they are written, for example `["super", "table", "integer"]`.
    pub(crate) paths: Vec<Vec<String>>,
    /// The names that the module exports with `pub use`, each with the path of the exported item.
    pub(crate) exports: BTreeMap<String, Vec<String>>,
}

/// Returns the modules of the crate whose root is this file.
pub(crate) fn modules(root: &Path) -> Vec<Module> {
    let mut modules = Vec::new();
    let folder = root.parent().expect("the path of a file has a parent");
    load(Vec::new(), root.to_owned(), folder, &mut modules);
    modules
}

fn load(name: Vec<String>, file: PathBuf, folder: &Path, modules: &mut Vec<Module>) {
    let syntax = syn::parse_file(&read(&file));
    let syntax =
        syntax.unwrap_or_else(|error| panic!("cannot parse `{}`: {error}", file.display()));
    add(name, &file, folder, &syntax.items, modules);
}

fn add(name: Vec<String>, file: &Path, folder: &Path, items: &[Item], modules: &mut Vec<Module>) {
    let mut names = Names::default();
    for item in items {
        let Item::Mod(module) = item else {
            names.visit_item(item);
            continue;
        };
        if is_test(&module.attrs) {
            continue;
        }
        let child = module.ident.to_string();
        let mut path = name.clone();
        path.push(child.clone());
        match &module.content {
            Some((_, items)) => add(path, file, folder, items, modules),
            None => {
                let file = folder.join(format!("{child}.rs"));
                load(path, file, &folder.join(&child), modules);
            }
        }
    }
    let Names { paths, exports } = names;
    modules.push(Module { name, file: file.to_owned(), paths, exports });
}

/// Collects the paths and the exports of a module.
#[derive(Default)]
struct Names {
    paths: Vec<Vec<String>>,
    exports: BTreeMap<String, Vec<String>>,
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, syn::Visibility::Inherited);
        self.add_use(&item.tree, &mut Vec::new(), is_public);
    }

    /// Skips the path in `pub(crate)`, `pub(super)` and `pub(in …)`, which imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string());
        self.paths.push(segments.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.add_tokens(called.tokens.clone());
    }
}

impl Names {
    fn add_use(&mut self, tree: &UseTree, path: &mut Vec<String>, is_public: bool) {
        let depth = path.len();
        match tree {
            UseTree::Path(segment) => {
                path.push(segment.ident.to_string());
                self.add_use(&segment.tree, path, is_public);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, path, is_public);
                }
            }
            UseTree::Glob(_) => self.paths.push(path.clone()),
            UseTree::Name(name) => self.add_name(&name.ident, &name.ident, path, is_public),
            UseTree::Rename(name) => self.add_name(&name.ident, &name.rename, path, is_public),
        }
        path.truncate(depth);
    }

    fn add_name(
        &mut self,
        name: &syn::Ident,
        known_as: &syn::Ident,
        path: &[String],
        is_public: bool,
    ) {
        let mut path = path.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        if is_public {
            self.exports.insert(known_as.to_string(), path.clone());
        }
        self.paths.push(path);
    }

    /// Adds the paths that begin with `crate` or `super` in the arguments of a macro.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut end = |path: &mut Vec<String>| {
            let path = std::mem::take(path);
            // A single word, as in `pub(crate)`, imports nothing.
            let is_path = path.len() > 1;
            if is_path && matches!(path[0].as_str(), "crate" | "super") {
                self.paths.push(path);
            }
        };
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        end(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    groups.push(group.stream());
                    end(&mut path);
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    end(&mut path);
                    colons = 0;
                }
            }
        }
        end(&mut path);
        for group in groups {
            self.add_tokens(group);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
