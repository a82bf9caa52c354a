//! The compiler for components: Rust for the target `wasm32-wasip2`.
//!
//! If the toolchain that runs this program has the target, or rustup can add the target, this toolchain is
//! used. Otherwise Debian's compiler is used, which compiles the standard library for the target from
//! Debian's package of sources.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, command, on_path, output, run_slowly, say};
use crate::install::{self, Need, debian_compiler};
use crate::repository;

/// The target of components.
pub(crate) const TRIPLE: &str = "wasm32-wasip2";

/// The linker that turns a module into a component.
const COMPONENT_LINKER: &str = "wasm-component-ld";
const COMPONENT_LINKER_VERSION: &str = "0.5.31";

const RUSTUP_LIMIT: Duration = Duration::from_secs(5 * 60);
const CARGO_INSTALL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A compiler for components.
#[derive(Debug)]
pub(crate) enum WasmTarget {
    /// The toolchain that runs this program. It has the target.
    Toolchain,
    /// Debian's compiler, and the linkers that it uses.
    Debian { component_linker: PathBuf, wasm_linker: PathBuf },
}

impl WasmTarget {
    /// Returns the Debian packages that the compiler needs. Returns `None` if the toolchain has the target or
    /// rustup can add it.
    pub(crate) fn need() -> Option<Need> {
        // Without a network rustup takes minutes to fail, so the result is kept and rustup is run only once.
        static TOOLCHAIN: LazyLock<bool> =
            LazyLock::new(|| toolchain_has_target() || rustup_adds_target());
        (!*TOOLCHAIN).then_some(Need::DebianCompiler)
    }

    /// Returns the first compiler that exists or can be installed.
    ///
    /// # Errors
    ///
    /// If there is no compiler. The error says what to install.
    pub(crate) fn find_or_install() -> Result<Self> {
        let Some(need) = Self::need() else { return Ok(Self::Toolchain) };
        install::prepare(&[need])?;
        let wasm_linker = debian_compiler::wasm_linker();
        let wasm_linker = wasm_linker.context("there is no `wasm-ld` in `/usr/bin`")?;
        Ok(Self::Debian { component_linker: component_linker()?, wasm_linker })
    }

    /// Returns the name of the compiler for the user.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Toolchain => "rustc of this toolchain",
            Self::Debian { .. } => debian_compiler::RUSTC,
        }
    }

    /// Returns the command that builds a workspace of guests. All workspaces share the `target` folder of the
    /// tasks, because their guests use the same libraries.
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
                    format!("-L{}", debian_compiler::LIBC),
                ];
                flags.extend(without_paths());
                let mut build = command(debian_compiler::CARGO);
                build.current_dir(workspace);
                build.args(["build", "--release", "--target", TRIPLE]);
                build.args(["-Z", "build-std=std,panic_abort"]);
                build.arg("--target-dir").arg(target);
                build.env("RUSTC", debian_compiler::RUSTC);
                build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
                // Allows `-Z` with a stable compiler. Only `-Z build-std` can build the standard library for
                // a target that has none.
                build.env("RUSTC_BOOTSTRAP", "1");
                // Hides the programs of other Rust toolchains, which must not be used.
                build.env("PATH", "/usr/bin:/bin").env_remove("LD_LIBRARY_PATH");
                build
            }
        }
    }
}

/// Returns compiler flags that remove paths on this machine from the components. Without the flags a panic
/// message would contain the path of its source file.
fn without_paths() -> Vec<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let sources = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let sources = sources.into_iter().flatten().flatten();
    sources
        .map(|source| format!("--remap-path-prefix={}=crates", source.path().display()))
        .collect()
}

fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| beside_cargo("rustc"))
}

fn toolchain_has_target() -> bool {
    let rustc = rustc();
    output(command(rustc).args(["--print", "sysroot"]).env_remove("LD_LIBRARY_PATH")).is_ok_and(
        |sysroot| Path::new(&sysroot).join("lib/rustlib").join(TRIPLE).join("lib").is_dir(),
    )
}

/// Returns a program of the toolchain whose cargo started this program.
fn beside_cargo(program: &str) -> OsString {
    let cargo = env::var_os("CARGO").map(PathBuf::from).unwrap_or_default();
    let beside = cargo.with_file_name(program);
    if cargo.is_absolute() && beside.is_file() { beside.into() } else { program.into() }
}

/// Lets rustup add the target to the toolchain, if rustup exists and may install. Returns whether the
/// toolchain has the target afterwards.
fn rustup_adds_target() -> bool {
    if !rustup_may_install(env::var_os("RUSTUP_AUTO_INSTALL").as_deref())
        || on_path("rustup").is_none()
    {
        return false;
    }
    let mut add = command("rustup");
    add.args(["target", "add", TRIPLE]);
    let (what, takes) = (format!("adding the target {TRIPLE}"), Duration::from_secs(30));
    match run_slowly(&what, takes, &mut add, RUSTUP_LIMIT) {
        Ok(()) if toolchain_has_target() => return true,
        Ok(()) => say(&format!("rustup added {TRIPLE} to another toolchain")),
        Err(error) => say(&format!("{error:#}")),
    }
    false
}

/// Returns whether rustup may install the target. `RUSTUP_AUTO_INSTALL=0` forbids it.
fn rustup_may_install(setting: Option<&OsStr>) -> bool {
    setting.is_none_or(|setting| setting != "0")
}

/// Returns the component linker of the toolchain, or builds it if the toolchain has none.
///
/// A toolchain of rustup contains the linker even if the target is not installed.
fn component_linker() -> Result<PathBuf> {
    if let Some(linker) = component_linker_of_toolchain() {
        return Ok(linker);
    }
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
        let takes = Duration::from_secs(5 * 60);
        run_slowly(&what, takes, &mut install, CARGO_INSTALL_LIMIT)?;
    }
    if !is_there() {
        bail!("`{}` is not version {COMPONENT_LINKER_VERSION}", linker.display());
    }
    Ok(linker)
}

fn component_linker_of_toolchain() -> Option<PathBuf> {
    let mut libraries = command(rustc());
    libraries.args(["--print", "target-libdir"]).env_remove("LD_LIBRARY_PATH");
    let libraries = PathBuf::from(output(&mut libraries).ok()?);
    let linker = libraries.parent()?.join("bin").join(COMPONENT_LINKER);
    output(command(&linker).arg("--version")).is_ok().then_some(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustup_is_not_run_if_the_environment_forbids_installations() {
        assert!(!rustup_may_install(Some("0".as_ref())));
        assert!(rustup_may_install(Some("1".as_ref())));
        assert!(rustup_may_install(None));
    }
}
