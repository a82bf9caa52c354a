//! The capabilities of one task: all that its runs can use, prepared when the task is loaded.
//!
//! They are the open directories, the HTTP access, the secrets and the other grants of the manifest, together
//! with the task's configuration. The caller has already read the secrets. No part of a message influences
//! the capabilities.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_egress::Egress;
use loopabull_model::{Access, Grants, Manifest, Mask, TopicPattern};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::setup::EgressSetup;

/// The capabilities of one task.
#[derive(Debug)]
pub(crate) struct Capabilities {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) mask: Mask,
    pub(crate) emit: Vec<TopicPattern>,
    /// Maximum size of the task's state, in bytes.
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

/// The reason why a grant of a manifest cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    #[error("cannot open the granted directory `{path}`")]
    Dir { path: PathBuf, source: std::io::Error },
    #[error("the guest directory `{guest}` is not an absolute path, or is granted twice")]
    GuestPath { guest: String },
    #[error("the environment variable `{name}` has an invalid name or value")]
    Variable { name: String },
}

impl Capabilities {
    /// Opens the granted directories and prepares the HTTP access. If the path of a directory is replaced
    /// later, the task still uses the directory that was opened.
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
        let is_valid = |name: &str, value: &str| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        if let Some((name, _)) = env.iter().find(|(name, value)| !is_valid(name, value)) {
            return Err(GrantError::Variable { name: name.escape_debug().to_string() });
        }
        let open_egress = || {
            let EgressSetup { limits, tls_roots } = egress;
            Egress::new(http.clone(), *limits, tls_roots.clone())
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

    /// Returns whether the task can open files or connections.
    pub(crate) fn opens_descriptors(&self) -> bool {
        !self.dirs.is_empty() || self.egress.is_some()
    }

    /// Adds the granted directories and environment variables to a run.
    pub(crate) fn apply(&self, wasi: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for (name, value) in &self.env {
            wasi.env(name, value);
        }
        for OpenDir { dir, guest, perms } in &self.dirs {
            // This path leads to the directory that was opened when the task was loaded, even if there is now
            // another directory at the granted path.
            let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
            wasi.preopened_dir(path, guest, *perms)?;
        }
        Ok(())
    }
}
