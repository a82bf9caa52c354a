//! The compiler for components: Rust for `wasm32-wasip2`.
//!
//! In this order: the target that the toolchain has; the one that rustup adds; Debian's compiler,
//! which is packaged with the sources of the standard library and makes the target of them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, on_path, output, run, say};
use crate::{install, repository};

/// What components are compiled for.
pub(crate) const TRIPLE: &str = "wasm32-wasip2";

const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "lld-19", "wasi-libc"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LIBC: &str = "/usr/lib/wasm32-wasi";
/// Turns what the linker makes into a component. rustup's target has it inside.
const COMPONENT_LINKER: &str = "wasm-component-ld";
const COMPONENT_LINKER_VERSION: &str = "0.5.31";

const RUSTUP_LIMIT: Duration = Duration::from_secs(5 * 60);
const CARGO_INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A compiler for components.
#[derive(Debug)]
pub(crate) enum WasmTarget {
    /// The toolchain that built this program has the target.
    Toolchain,
    /// Debian's compiler, with these linkers.
    Debian { component_linker: PathBuf, wasm_linker: PathBuf },
}

impl WasmTarget {
    /// Returns the first compiler that is there or can be installed.
    ///
    /// # Errors
    ///
    /// If there is none; the text says what to install.
    pub(crate) fn find_or_install() -> Result<Self> {
        if toolchain_has_target() {
            return Ok(Self::Toolchain);
        }
        if rustup_may_install(env::var_os("RUSTUP_AUTO_INSTALL").as_deref())
            && on_path("rustup").is_some()
        {
            let mut add = command("rustup");
            add.args(["target", "add", TRIPLE]);
            match run(&format!("adding the target {TRIPLE}"), &mut add, RUSTUP_LIMIT) {
                Ok(()) if toolchain_has_target() => return Ok(Self::Toolchain),
                Ok(()) => say(&format!("rustup added {TRIPLE} to another toolchain")),
                Err(error) => say(&format!("{error:#}")),
            }
        }
        Self::debian().with_context(|| {
            format!(
                "no compiler for {TRIPLE}; run: rustup target add {TRIPLE}, or as root on \
                 Debian: apt-get install {}",
                DEBIAN_PACKAGES.join(" ")
            )
        })
    }

    /// Returns the command that builds a workspace of guests. What is built is under the tasks' own
    /// `target`, for all of them: their libraries are the same.
    pub(crate) fn build_command(&self, workspace: &Path) -> Command {
        let target = repository::tasks().join("target");
        match self {
            Self::Toolchain => {
                let mut build = cargo();
                build.args(["build", "--release", "--target", TRIPLE]);
                build.arg("--manifest-path").arg(workspace.join("Cargo.toml"));
                build.arg("--target-dir").arg(target);
                build
            }
            Self::Debian { component_linker, wasm_linker } => {
                let mut flags = vec![
                    "-Clink-self-contained=no".into(),
                    format!("-Clinker={}", component_linker.display()),
                    format!("-Clink-arg=--wasm-ld-path={}", wasm_linker.display()),
                    format!("-L{DEBIAN_LIBC}"),
                ];
                flags.extend(without_paths());
                let mut build = command(DEBIAN_CARGO);
                build.current_dir(workspace);
                build.args(["build", "--release", "--target", TRIPLE]);
                build.args(["-Z", "build-std=std,panic_abort"]);
                build.arg("--target-dir").arg(target);
                build.env("RUSTC", DEBIAN_RUSTC).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
                // Opens `-Z` on a released compiler: the one way to a standard library for a
                // target that comes without.
                build.env("RUSTC_BOOTSTRAP", "1");
                // Nothing of the toolchain that runs us may come in between.
                build.env("PATH", "/usr/bin:/bin").env_remove("LD_LIBRARY_PATH");
                build
            }
        }
    }

    fn debian() -> Result<Self> {
        if !debian_is_complete() {
            install::apt(DEBIAN_PACKAGES)?;
        }
        let wasm_linker = wasm_linker().context("there is no `wasm-ld` in `/usr/bin`")?;
        Ok(Self::Debian { component_linker: component_linker()?, wasm_linker })
    }
}

/// Keeps where the crates lie on this machine out of the components: panics name their place.
fn without_paths() -> Vec<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let sources = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let sources = sources.into_iter().flatten().flatten();
    sources
        .map(|source| format!("--remap-path-prefix={}=crates", source.path().display()))
        .collect()
}

fn toolchain_has_target() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| beside_cargo("rustc"));
    has_in_sysroot(&rustc, &format!("lib/rustlib/{TRIPLE}/lib"))
}

/// Returns the compiler that belongs to the cargo that started us.
fn beside_cargo(program: &str) -> OsString {
    let cargo = env::var_os("CARGO").map(PathBuf::from).unwrap_or_default();
    let beside = cargo.with_file_name(program);
    if cargo.is_absolute() && beside.is_file() { beside.into() } else { program.into() }
}

fn has_in_sysroot(rustc: &OsStr, path: &str) -> bool {
    output(command(rustc).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH"))
        .is_ok_and(|sysroot| Path::new(&sysroot).join(path).is_dir())
}

/// Who sets `RUSTUP_AUTO_INSTALL=0` wants nothing installed by rustup.
fn rustup_may_install(setting: Option<&OsStr>) -> bool {
    setting.is_none_or(|setting| setting != "0")
}

fn debian_is_complete() -> bool {
    Path::new(DEBIAN_CARGO).is_file()
        && Path::new(DEBIAN_LIBC).join("libc.a").is_file()
        && wasm_linker().is_some()
        && has_in_sysroot(DEBIAN_RUSTC.as_ref(), "lib/rustlib/src/rust/library")
}

fn wasm_linker() -> Option<PathBuf> {
    let folder = Path::new("/usr/bin");
    let entries = fs::read_dir(folder).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    newest_wasm_linker(names).map(|name| folder.join(name))
}

/// Returns the `wasm-ld-NN` with the largest number, else `wasm-ld`.
fn newest_wasm_linker(names: impl Iterator<Item = String>) -> Option<String> {
    let version = |name: &str| match name.strip_prefix("wasm-ld")? {
        "" => Some(0),
        rest => rest.strip_prefix('-')?.parse::<u32>().ok(),
    };
    names.filter(|name| version(name).is_some()).max_by_key(|name| version(name))
}

fn component_linker() -> Result<PathBuf> {
    let folder = repository::target().join("wasm-tools");
    let linker = folder.join("bin").join(COMPONENT_LINKER);
    let is_there = || {
        output(command(&linker).arg("--version"))
            .is_ok_and(|version| version.ends_with(&format!(" {COMPONENT_LINKER_VERSION}")))
    };
    if !is_there() {
        let mut install = cargo();
        install.args(["install", COMPONENT_LINKER, "--locked", "--force"]);
        install.args(["--version", COMPONENT_LINKER_VERSION]).arg("--root").arg(&folder);
        let what = format!("building {COMPONENT_LINKER} {COMPONENT_LINKER_VERSION}");
        run(&what, &mut install, CARGO_INSTALL_LIMIT)?;
    }
    if !is_there() {
        bail!("`{}` is not version {COMPONENT_LINKER_VERSION}", linker.display());
    }
    Ok(linker)
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

    #[test]
    fn rustup_is_left_alone_where_it_may_not_install() {
        assert!(!rustup_may_install(Some("0".as_ref())));
        assert!(rustup_may_install(Some("1".as_ref())));
        assert!(rustup_may_install(None));
    }
}
