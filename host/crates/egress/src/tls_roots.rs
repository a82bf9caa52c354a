//! The TLS configuration for outgoing requests.
//!
//! The trusted root certificates are those of the system and those of an optional file. The configuration has
//! the same crypto provider as the TLS of the queue, and no client certificate. It allows only HTTP/1.1. It
//! is loaded once, and all tasks share it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use loopabull_model::{HttpHost, HttpOrigin};

use crate::error::SendError;

/// The root certificates with which server certificates are checked. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct TlsRoots {
    config: Arc<ClientConfig>,
}

/// The reason why the root certificates cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootsError {
    #[error("cannot read certificates from `{path}`")]
    Read { path: PathBuf, source: pem::Error },
    #[error("`{path}` contains no certificate")]
    Empty { path: PathBuf },
    #[error("`{path}` contains a certificate that cannot be used as a root")]
    Root { path: PathBuf, source: rustls::Error },
    #[error("cannot configure TLS")]
    Provider { source: rustls::Error },
}

impl TlsRoots {
    /// Reads the root certificates of the system and of the PEM file `extra`.
    ///
    /// System certificates that cannot be read are skipped. If there is no root certificate at all, no server
    /// is trusted. Fails if `extra` cannot be read, contains no certificate, or contains a certificate that
    /// cannot be a root.
    pub fn load(extra: Option<&Path>) -> Result<Self, TlsRootsError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = extra {
            add_file(&mut roots, path)?;
        }
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|source| TlsRootsError::Provider { source })?
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Establishes TLS on a connection. The certificate of the server must be valid for the host of the
    /// origin.
    pub(crate) async fn secure(
        &self,
        origin: &HttpOrigin,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let name = match &origin.host {
            HttpHost::Address(address) => ServerName::from(*address),
            HttpHost::Name(name) => ServerName::try_from(name.clone()).map_err(|error| {
                let source = io::Error::new(io::ErrorKind::InvalidInput, error);
                SendError::Tls { origin: origin.clone(), source }
            })?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(name, stream).await.map_err(|source| {
            let origin = origin.clone();
            match source.get_ref().and_then(|error| error.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => {
                    SendError::Certificate { origin, source }
                }
                _ => SendError::Tls { origin, source },
            }
        })
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsRootsError> {
    let read = |source| TlsRootsError::Read { path: path.to_owned(), source };
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        roots
            .add(certificate.map_err(read)?)
            .map_err(|source| TlsRootsError::Root { path: path.to_owned(), source })?;
    }
    if roots.len() == before {
        return Err(TlsRootsError::Empty { path: path.to_owned() });
    }
    Ok(())
}
