//! Certificates for signed fedmsg messages: a CA, leaf certificates and a revocation list.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::interpreter::python;

const SCRIPT: &str = include_str!("pki.py");

/// A CA and its certificates, in a folder.
#[derive(Debug)]
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// The name of the CA and of its files.
    pub const CA: &str = "ca";

    /// Makes a CA.
    ///
    /// # Panics
    ///
    /// If no installed Python has the module `cryptography`. The message says what to do.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("loopabull-pki-").tempdir();
        let pki = Self { folder: folder.expect("a temporary folder can be created") };
        pki.make(&[json!({"ca": Self::CA})]);
        pki
    }

    /// Makes a certificate with this common name, and its key.
    pub fn leaf(&self, name: &str, serial: u32) {
        self.make(&[json!({"leaf": name, "ca": Self::CA, "serial": serial, "days": 365})]);
    }

    /// Writes the list of revoked certificates, which is valid for this number of days from now.
    pub fn revoke(&self, serials: &[u32], days: i32) {
        let crl = json!({"crl": "crl.pem", "ca": Self::CA, "revoked": serials, "days": days});
        self.make(&[crl]);
    }

    /// Returns the folder of the certificates, which can be fedmsg's `ssldir`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of a file in the folder: `NAME.crt`, `NAME.key` or `crl.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, commands: &[Value]) {
        let mut process = Command::new(python())
            .args(["-c", SCRIPT])
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python can be started");
        let mut input = process.stdin.take().expect("standard input is piped");
        for command in commands {
            writeln!(input, "{command}").expect("Python reads its input");
        }
        drop(input);
        let output = process.wait_with_output().expect("a child can be waited for");
        assert!(output.status.success(), "Python cannot make the certificates");
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}
