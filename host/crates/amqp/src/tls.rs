//! TLS to a broker: trusted authorities and a client certificate from files, and readable errors.
//!
//! Lapin's own TLS trusts the system's authorities in addition to the configured ones. So we do the handshake
//! ourselves.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore};
use serde::Deserialize;

/// Time for which we wait for the broker's reason after the broker has rejected a connection.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// Files in PEM format. Each connection reads the files again, so a renewed certificate is used.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// File with the authorities that may sign the broker's certificate. Default: the authorities of the
    /// system.
    pub ca_cert: Option<PathBuf>,
    /// File with the private key of `certfile`. If both files are set, we log in with the certificate (AMQP's
    /// `EXTERNAL`) and ignore the user and password of the URL.
    pub keyfile: Option<PathBuf>,
    /// File with the client certificate.
    pub certfile: Option<PathBuf>,
}

/// The reason why TLS with a broker failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the `{key}` file `{file}`")]
    Open { key: &'static str, file: PathBuf, source: io::Error },
    #[error("the `{key}` file `{file}` contains no {what} in PEM form")]
    NotPem { key: &'static str, file: PathBuf, what: &'static str },
    #[error("`{given}` is set without `{missing}`")]
    Incomplete { given: &'static str, missing: &'static str },
    #[error("the key in `{keyfile}` and the certificate in `{certfile}` cannot be used together")]
    Identity { keyfile: PathBuf, certfile: PathBuf, source: rustls::Error },
    #[error("this system has no authorities to verify the certificate of `{host}`")]
    NoSystemAuthorities { host: String },
    #[error("the certificate of `{host}` is not signed by an authority in {authorities}")]
    UnknownAuthority { host: String, authorities: String },
    #[error("the certificate of `{host}` has expired")]
    Expired { host: String },
    #[error("the certificate of `{host}` is not yet valid")]
    NotYetValid { host: String },
    #[error("the certificate of `{host}` is for another name")]
    WrongName { host: String },
    #[error("`{host}` rejects the client certificate in `{certfile}`: {reason}")]
    ClientCertificateRejected { host: String, certfile: PathBuf, reason: &'static str },
    #[error("`{host}` requires a client certificate, but `certfile` is not set")]
    ClientCertificateRequired { host: String },
    #[error("the TLS handshake with `{host}` failed")]
    Other { host: String, source: rustls::Error },
}

impl TlsFiles {
    /// Returns whether there is a client certificate with its key.
    pub(crate) fn has_identity(&self) -> bool {
        self.certfile.is_some() && self.keyfile.is_some()
    }

    /// Reads the files, and returns the TLS configuration for a connection to `host`.
    pub(crate) fn client_config(&self, host: &str) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default TLS versions")
            .with_root_certificates(self.authorities(host)?);
        match (&self.certfile, &self.keyfile) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(_), None) => Err(TlsError::Incomplete { given: "certfile", missing: "keyfile" }),
            (None, Some(_)) => Err(TlsError::Incomplete { given: "keyfile", missing: "certfile" }),
            (Some(certfile), Some(keyfile)) => {
                let chain = certificates("certfile", certfile)?;
                let key = key(keyfile)?;
                builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity {
                    keyfile: keyfile.clone(),
                    certfile: certfile.clone(),
                    source,
                })
            }
        }
    }

    fn authorities(&self, host: &str) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        let found = match &self.ca_cert {
            Some(file) => certificates("ca_cert", file)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        // Certificates that rustls cannot read are skipped, because bundles may contain some.
        let (added, _) = store.add_parsable_certificates(found);
        match (&self.ca_cert, added) {
            (Some(file), 0) => {
                let (key, file, what) = ("ca_cert", file.clone(), "usable certificate");
                Err(TlsError::NotPem { key, file, what })
            }
            (None, 0) => Err(TlsError::NoSystemAuthorities { host: host.to_owned() }),
            _ => Ok(store),
        }
    }

    /// Returns the TLS error that made a connection fail, if there is one.
    pub(crate) async fn explain(&self, uri: &AMQPUri, error: &lapin::Error) -> Option<TlsError> {
        let ErrorKind::IOError(error) = error.kind() else { return None };
        let authority = &uri.authority;
        let host = authority.host.clone();
        if let Some(error) = tls_error(error) {
            return Some(self.describe(host, error));
        }
        let address = (authority.host.clone(), authority.port);
        let config = self.client_config(&authority.host).ok()?;
        let ask = tokio::task::spawn_blocking(move || read_rejection(address, config));
        let found = ask.await.ok().flatten()?;
        Some(self.describe(host, &found))
    }

    fn describe(&self, host: String, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InvalidCertificate(error) => self.describe_certificate(host, error),
            rustls::Error::AlertReceived(alert) => match &self.certfile {
                Some(certfile) if let Some(reason) = rejection(*alert) => {
                    TlsError::ClientCertificateRejected { host, certfile: certfile.clone(), reason }
                }
                None if *alert == AlertDescription::CertificateRequired
                    || *alert == AlertDescription::HandshakeFailure =>
                {
                    TlsError::ClientCertificateRequired { host }
                }
                _ => TlsError::Other { host, source: error.clone() },
            },
            _ => TlsError::Other { host, source: error.clone() },
        }
    }

    fn describe_certificate(&self, host: String, error: &CertificateError) -> TlsError {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsError::Expired { host }
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsError::NotYetValid { host }
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::WrongName { host }
            }
            // If the broker's authority has the same name as a trusted authority but another key, rustls
            // returns `BadSignature`.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let system = || "the system's list".to_owned();
                let file = self.ca_cert.as_ref().map(|file| format!("`{}`", file.display()));
                TlsError::UnknownAuthority { host, authorities: file.unwrap_or_else(system) }
            }
            error => {
                TlsError::Other { host, source: rustls::Error::InvalidCertificate(error.clone()) }
            }
        }
    }
}

/// Connects over TLS. Trusts only the authorities in `config`.
pub(crate) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    config: ClientConfig,
) -> lapin::Result<Connection> {
    let connector = RustlsConnector::from(Arc::new(config));
    let runtime = lapin::runtime::default_runtime()?;
    Connection::connector(
        uri,
        runtime,
        async move |uri, runtime| {
            let (host, port) = (uri.authority.host, uri.authority.port);
            let address = runtime.to_socket_addrs((host.clone(), port));
            let stream = AsyncTcpStream::connect(&runtime, address).await?;
            Ok(stream.into_rustls(&connector, &host).await?)
        },
        properties,
    )
    .await
}

/// Connects again to read the broker's reason for rejecting a connection.
///
/// Under TLS 1.3, a broker rejects the client certificate when the client has already sent data. The reason
/// is then lost together with the data that the broker did not read. This connection sends no data after the
/// handshake, so the reason arrives.
fn read_rejection(address: (String, u16), config: ClientConfig) -> Option<rustls::Error> {
    let name = ServerName::try_from(address.0.clone()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let connect = |address| TcpStream::connect_timeout(&address, REASON_TIMEOUT).ok();
    let mut stream = address.to_socket_addrs().ok()?.find_map(connect)?;
    stream.set_read_timeout(Some(REASON_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(REASON_TIMEOUT)).ok()?;
    let deadline = Instant::now() + REASON_TIMEOUT;
    while Instant::now() < deadline {
        if connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut stream) {
                return tls_error(&error).cloned();
            }
        } else if connection.read_tls(&mut stream).ok()? == 0 {
            return None;
        } else if let Err(error) = connection.process_new_packets() {
            return Some(error);
        }
    }
    None
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = open(key, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NotPem { key, file: file.to_owned(), what: "certificate" }),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = open("keyfile", file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_: PemError| TlsError::NotPem {
        key: "keyfile",
        file: file.to_owned(),
        what: "private key (a key with a passphrase cannot be used)",
    })
}

fn open(key: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Open { key, file: file.to_owned(), source })
}

/// Returns the reason in a TLS alert for which the broker rejects a client certificate (RFC 8446, 6.2;
/// RabbitMQ sends the alerts of Erlang's TLS). Returns `None` for other alerts.
fn rejection(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it was revoked",
        AlertDescription::UnknownCA => "its authority is unknown to the broker",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it is not acceptable",
        _ => return None,
    })
}
