//! A file that the sandbox of a playbook denied.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Access;

/// A file or directory that the error of a failed playbook names, and that the playbook could not use.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct DeniedFile {
    /// Absolute path, as the error names it. Nobody has looked whether the file exists.
    pub path: String,
    /// The access that a grant must give. With [`Access::ReadWrite`], the file can be read already.
    pub access: Access,
}

/// Writes the file and the grant that allows it.
impl fmt::Display for DeniedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.escape_debug();
        match self.access {
            Access::ReadOnly => {
                write!(f, "`{path}`, which `host = \"{path}\"` under `[[grants.dirs]]` grants")
            }
            Access::ReadWrite => {
                write!(
                    f,
                    "writing to `{path}`, which `access = \"read-write\"` in its grant allows"
                )
            }
        }
    }
}
