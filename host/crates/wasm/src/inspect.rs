//! Checks the imports and exports of a component before the component is compiled.
//!
//! If an import is refused, the error names the import, the missing grant, and the line to add to the
//! manifest. The linker would refuse the component too, but its error messages are less specific.

use loopabull_model::{Grants, Reason};
use wasmparser::{ComponentType, Parser, Payload};

use crate::capabilities::GrantError;

/// The version of the WIT world that this host provides. All 0.1.x versions are compatible.
const VERSION: &str = "0.1.0";
const HANDLER: &str = "loopabull:task/handler";
/// The maximum length of an import or export name in an error message, in characters.
const MAX_NAME: usize = 200;
/// The maximum nesting depth of components. Build tools wrap exports in one or two components.
const MAX_DEPTH: usize = 8;
/// The maximum number of imports and exports of a component.
const MAX_NAMES: usize = 1000;
/// The maximum number of nested types. wasmparser and other readers recurse into nested types, and would
/// overflow the stack if a component had more of them.
const MAX_NESTED_TYPES: usize = 1000;

/// The reason why a component cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the file is not a component: {reason}")]
    NotComponent { reason: String },
    #[error("the file is a WebAssembly module, not a component")]
    Module,
    #[error("the component has {bytes} bytes, the limit is {limit}")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the component cannot be compiled: {reason}")]
    NotCompiled { reason: Reason },
    #[error("compiling the component took longer than {seconds} s")]
    TooSlow { seconds: u64 },
    #[error("the component does not export `{HANDLER}@{VERSION}`, so it is not a task")]
    NoHandler,
    #[error("the component exports `{found}`, but this host supports version {VERSION}")]
    OtherVersion { found: String },
    #[error("the component imports {}", list(missing))]
    NotGranted { missing: Vec<MissingGrant> },
    #[error("the component imports `{import}`, but sockets cannot be granted to a task")]
    Sockets { import: String },
    #[error("the component imports `{import}`, but this host supports version {has}")]
    ImportVersion { import: String, has: &'static str },
    #[error("the component imports `{import}`, which this host does not provide")]
    UnknownImport { import: String },
    #[error(
        "the component has nested components that define resources, which this host does not support"
    )]
    Composed,
    #[error(
        "the component has more than {MAX_NAMES} imports and exports, or components nested deeper than \
         {MAX_DEPTH} levels"
    )]
    TooComplex,
    #[error("the component has more than {MAX_NESTED_TYPES} nested types")]
    NestedTypes,
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the component does not fit the world `loopabull:task/granted@{VERSION}`: {reason}")]
    World { reason: Reason },
}

impl LoadError {
    /// Returns advice for the operator, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Module | Self::NoHandler => {
                Some("build the component with `#[task]` for the target wasm32-wasip2".to_owned())
            }
            Self::NotGranted { missing } => {
                let lines: Vec<_> = missing.iter().map(|missing| missing.line).collect();
                Some(format!("add to the task's manifest: {}", lines.join(", and ")))
            }
            Self::Sockets { .. } => Some("send HTTP requests with `wasi:http` instead".to_owned()),
            Self::OtherVersion { .. } | Self::ImportVersion { .. } | Self::World { .. } => {
                Some("build the component with the SDK of this host's version".to_owned())
            }
            Self::Composed => Some("deploy each part as a separate task".to_owned()),
            _ => None,
        }
    }
}

/// An import of a component for which the manifest of the task has no grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingGrant {
    import: String,
    grant: &'static str,
    /// The line that grants the import.
    line: &'static str,
}

/// A grant that an import needs.
struct Need {
    grant: &'static str,
    /// The line of a manifest that grants the import.
    line: &'static str,
    is_granted: bool,
}

impl Need {
    /// Returns the grant that an import needs. `None` if the import needs no grant.
    fn of(import: &str, grants: &Grants) -> Option<Self> {
        let (grant, line, is_granted) = match interface(import) {
            "loopabull:task/emit" => (
                "emit",
                r#"`emit = ["org.example.topic"]` under `[grants]`"#,
                !grants.emit.is_empty(),
            ),
            "loopabull:task/state" => {
                ("state", r#"`state = "1MiB"` under `[grants]`"#, grants.state.is_some())
            }
            "loopabull:task/secrets" => (
                "secrets",
                r#"`NAME = { file = "/path" }` under `[grants.secrets]`"#,
                !grants.secrets.is_empty(),
            ),
            name if name.starts_with("wasi:http/") => {
                ("http", r#"`http = ["https://host"]` under `[grants]`"#, !grants.http.is_empty())
            }
            _ => return None,
        };
        Some(Self { grant, line, is_granted })
    }
}

/// Returns a clause for each missing grant.
fn list(missing: &[MissingGrant]) -> String {
    let clause = |missing: &MissingGrant| {
        format!("`{}`, which needs the grant `{}`", missing.import, missing.grant)
    };
    missing.iter().map(clause).collect::<Vec<_>>().join(", and ")
}

/// The names of a component's imports and exports.
#[derive(Debug, Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Checks that a component is a task, and that it imports only what the manifest of the task grants.
pub(crate) fn check(bytes: &[u8], grants: &Grants) -> Result<(), LoadError> {
    let names = names(bytes)?;
    let handler = names.exports.iter().find(|name| interface(name) == HANDLER);
    match handler {
        None => return Err(LoadError::NoHandler),
        Some(found) if !found.ends_with("@0.1.0") && !is_track(found, "0.1.") => {
            return Err(LoadError::OtherVersion { found: printable(found) });
        }
        Some(_) => (),
    }
    let mut missing: Vec<MissingGrant> = Vec::new();
    for import in &names.imports {
        let need = Need::of(import, grants);
        check_import(import, need.is_some())?;
        if let Some(Need { grant, line, is_granted: false }) = need
            && missing.iter().all(|other| other.grant != grant)
        {
            missing.push(MissingGrant { import: printable(import), grant, line });
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(LoadError::NotGranted { missing }) }
}

/// Checks that this host provides an import. `needs_grant` is true if a grant decides about the import.
fn check_import(import: &str, needs_grant: bool) -> Result<(), LoadError> {
    let name = printable(import);
    let (package, _) = interface(import).split_once('/').unwrap_or((interface(import), ""));
    match package {
        "loopabull:task" if !is_track(import, "0.1.") => {
            return Err(LoadError::ImportVersion { import: name, has: VERSION });
        }
        "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem"
        | "wasi:http"
            if !is_track(import, "0.2.") =>
        {
            return Err(LoadError::ImportVersion { import: name, has: "0.2" });
        }
        _ => (),
    }
    match interface(import) {
        "loopabull:task/types"
        | "loopabull:task/context"
        | "loopabull:task/log"
        | "loopabull:task/config" => Ok(()),
        _ if needs_grant => Ok(()),
        _ if package == "wasi:sockets" => Err(LoadError::Sockets { import: name }),
        // The standard library of a guest always imports these interfaces. Without a grant they provide no
        // directory and no environment variable, so every component may import them.
        _ if matches!(
            package,
            "wasi:io" | "wasi:clocks" | "wasi:random" | "wasi:cli" | "wasi:filesystem"
        ) =>
        {
            Ok(())
        }
        _ => Err(LoadError::UnknownImport { import: name }),
    }
}

/// Reads the names of the imports and exports.
///
/// Refuses nested components that define resources, because they can pass borrowed handles to each other.
/// wasmtime had a vulnerability there (GHSA-6fr9). Other nested components are allowed, because some build
/// tools produce them.
fn names(bytes: &[u8]) -> Result<Names, LoadError> {
    let not_component = |error: wasmparser::BinaryReaderError| {
        // The first line describes the problem. The other lines are a dump of bytes.
        let reason = error.message().lines().next().unwrap_or_default();
        let reason = reason.split(" - expected").next().unwrap_or_default().to_owned();
        LoadError::NotComponent { reason }
    };
    let mut names = Names::default();
    // Number of components and modules that contain the current payload.
    let mut depth = 0_usize;
    let mut nested_types = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_component)? {
            Payload::Version { encoding: wasmparser::Encoding::Module, .. } if depth == 0 => {
                return Err(LoadError::Module);
            }
            Payload::ModuleSection { .. } => depth += 1,
            Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(LoadError::TooComplex);
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentTypeSection(section) => {
                nested_types += count_nested_types(&bytes[section.range()]);
                if nested_types > MAX_NESTED_TYPES {
                    return Err(LoadError::NestedTypes);
                }
                for defined in section {
                    let is_resource =
                        matches!(defined.map_err(not_component)?, ComponentType::Resource { .. });
                    if depth > 0 && is_resource {
                        return Err(LoadError::Composed);
                    }
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.imports.push(import.map_err(not_component)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    names.exports.push(export.map_err(not_component)?.name.name.to_owned());
                }
            }
            _ => (),
        }
        if names.imports.len() + names.exports.len() > MAX_NAMES {
            return Err(LoadError::TooComplex);
        }
    }
    Ok(names)
}

/// Returns an upper bound of the number of nested types in a type section.
///
/// Counts the places where a byte that declares a type is followed by a byte that begins a component type or
/// an instance type. Names and numbers may contain the same two bytes, so the count may be too high. It is
/// never too low.
fn count_nested_types(section: &[u8]) -> usize {
    section.windows(2).filter(|pair| matches!(pair, [0x01, 0x41 | 0x42])).count()
}

/// Returns a name without its version: `wasi:io/poll` for `wasi:io/poll@0.2.6`.
fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

fn is_track(name: &str, track: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| version.starts_with(track))
}

/// Returns a name for an error message: truncated, and without characters that could start a new line.
fn printable(name: &str) -> String {
    name.chars().filter(|&c| !loopabull_model::is_harmful(c)).take(MAX_NAME).collect()
}
