//! The resolver, which finds the module that a path in the code refers to.

use std::collections::BTreeMap;

use crate::module::Module;

/// The maximum number of re-exports that are followed in a row.
const MAX_EXPORTS: usize = 8;

/// The modules of one crate, by name.
pub(crate) struct Resolver<'a> {
    modules: BTreeMap<&'a [String], &'a Module>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(modules: &'a [Module]) -> Self {
        Self { modules: modules.iter().map(|module| (&module.name[..], module)).collect() }
    }

    /// Returns the module that defines the item of a path in the module `from`. Re-exports are followed.
    /// Returns `None` for a path into another crate and for a local name.
    pub(crate) fn resolve(&self, from: &Module, path: &[String]) -> Option<&'a Module> {
        self.follow(from, path, MAX_EXPORTS)
    }

    fn follow(&self, from: &Module, path: &[String], exports: usize) -> Option<&'a Module> {
        let first = path.first()?;
        let (mut name, mut rest): (Vec<String>, _) = match first.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.name.clone(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|segment| *segment == "super").count();
                let depth = from.name.len().checked_sub(up)?;
                (from.name[..depth].to_vec(), &path[up..])
            }
            _ => {
                let mut child = from.name.clone();
                child.push(first.clone());
                self.modules.get(&child[..])?;
                (from.name.clone(), path)
            }
        };
        while let Some(segment) = rest.first() {
            name.push(segment.clone());
            if !self.modules.contains_key(&name[..]) {
                name.pop();
                break;
            }
            rest = &rest[1..];
        }
        let module = *self.modules.get(&name[..])?;
        let Some(item) = rest.first().filter(|_| exports > 0) else { return Some(module) };
        let exported = module.exports.get(item).and_then(|path| {
            let whole: Vec<String> = path.iter().chain(&rest[1..]).cloned().collect();
            self.follow(module, &whole, exports - 1)
        });
        Some(exported.unwrap_or(module))
    }
}
