//! Capabilities: what one task may use, opened once when it is loaded.
//!
//! Made of the manifest's grants and of the secrets that the host read for it. Nothing that a
//! message contains comes in here.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_egress::Egress;
use loopabull_model::{Access, Grants, Manifest, Mask, TopicPattern};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::EgressSetup;

/// What one task may use.
#[derive(Debug)]
pub(crate) struct Capabilities {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) mask: Mask,
    pub(crate) emit: Vec<TopicPattern>,
    /// The most bytes that the task may remember.
    pub(crate) state: u64,
    pub(crate) egress: Option<Egress>,
    env: Vec<(String, String)>,
    dirs: Vec<OpenDir>,
}

#[derive(Debug)]
struct OpenDir {
    dir: Dir,
    guest: String,
    perms: FsPerms,
}

/// Why what a manifest grants cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error("cannot open the granted directory `{path}`")]
    Dir { path: PathBuf, source: std::io::Error },
    #[error("the directory `{guest}` of the task is not an absolute path, or is granted twice")]
    GuestPath { guest: String },
    #[error("the variable `{name}` has no proper name or value")]
    Variable { name: String },
}

impl Capabilities {
    /// Opens what is granted. A directory stays the one that it was, whatever takes its name later.
    pub(crate) fn open(
        manifest: &Manifest,
        secrets: BTreeMap<String, String>,
        egress: &EgressSetup,
    ) -> Result<Self, GrantError> {
        let Grants { dirs, http, env, emit, state, .. } = &manifest.grants;
        let mut seen = BTreeSet::new();
        let mut open = Vec::new();
        for grant in dirs {
            let guest = grant.guest();
            if !guest.starts_with('/') || !seen.insert(guest.clone()) {
                return Err(GrantError::GuestPath { guest });
            }
            let dir = Dir::open_ambient_dir(&grant.host, ambient_authority())
                .map_err(|source| GrantError::Dir { path: grant.host.clone(), source })?;
            let perms = match grant.access {
                Access::ReadOnly => FsPerms::ReadOnly,
                Access::ReadWrite => FsPerms::ReadWrite,
            };
            open.push(OpenDir { dir, guest, perms });
        }
        let is_proper = |name: &str, value: &str| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        if let Some((name, _)) = env.iter().find(|(name, value)| !is_proper(name, value)) {
            return Err(GrantError::Variable { name: name.escape_debug().to_string() });
        }
        let open_egress = || {
            let EgressSetup { limits, trust, resolver } = egress;
            Egress::new(http.clone(), *limits, trust.clone(), resolver.clone())
        };
        let egress = (!http.is_empty()).then(open_egress);
        Ok(Self {
            config: manifest.config.clone(),
            mask: Mask::new(&secrets),
            secrets,
            emit: emit.clone(),
            state: state.map_or(0, |state| state.as_u64()),
            egress,
            env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            dirs: open,
        })
    }

    /// Gives a run its directories and variables.
    pub(crate) fn furnish(&self, wasi: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for (name, value) in &self.env {
            wasi.env(name, value);
        }
        for OpenDir { dir, guest, perms } in &self.dirs {
            // By its descriptor: the directory that was opened at load, wherever its name leads now.
            let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
            wasi.preopened_dir(path, guest, *perms)?;
        }
        Ok(())
    }
}
