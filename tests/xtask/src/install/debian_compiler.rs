//! Debian's compiler for components: Rust with the sources of its standard library, a linker and
//! the C library of WASI.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{command, output};
use crate::install::version::Version;

pub(crate) const RUSTC: &str = "/usr/bin/rustc";
pub(crate) const CARGO: &str = "/usr/bin/cargo";
pub(crate) const LIBC: &str = "/usr/lib/wasm32-wasi";

/// Returns the path of the newest installed linker for WebAssembly.
pub(crate) fn wasm_linker() -> Option<PathBuf> {
    let folder = Path::new("/usr/bin");
    let entries = fs::read_dir(folder).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    newest_wasm_linker(names).map(|name| folder.join(name))
}

/// Returns the version of the sources of the standard library, from the name of their folder, for example
/// `/usr/src/rustc-1.96.0`.
pub(super) fn sources_version() -> Option<Version> {
    let sysroot = output(command(RUSTC).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH"));
    let library = Path::new(&sysroot.ok()?).join("lib/rustlib/src/rust/library");
    let library = library.canonicalize().ok()?;
    let name = library.parent()?.file_name()?.to_str()?;
    Version::find(name.strip_prefix("rustc-")?)
}

/// Returns the version of the package `wasi-libc`, because the library itself does not contain its version.
pub(super) fn libc_version() -> Option<Version> {
    if !Path::new(LIBC).join("libc.a").is_file() {
        return None;
    }
    let mut query = command("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "wasi-libc"]);
    Version::find(&output(&mut query).ok()?)
}

/// Returns the `wasm-ld-NN` with the largest number, or `wasm-ld` if there is no other.
fn newest_wasm_linker(names: impl Iterator<Item = String>) -> Option<String> {
    let version = |name: &str| match name.strip_prefix("wasm-ld")? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse::<u32>().ok(),
    };
    names.filter(|name| version(name).is_some()).max_by_key(|name| version(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expected: Option<&str>) {
        let newest = newest_wasm_linker(names.iter().map(|&name| name.to_owned()));
        assert_eq!(newest.as_deref(), expected);
    }

    #[test]
    fn newest_linker_is_taken() {
        check(&["wasm-ld-9", "wasm-ld-19", "wasm-ld", "ld"], Some("wasm-ld-19"));
        check(&["wasm-ld", "wasm-ldd"], Some("wasm-ld"));
        check(&["ld.lld-19"], None);
    }
}
