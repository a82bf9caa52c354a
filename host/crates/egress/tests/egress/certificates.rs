//! TLS: the certificate of a server must be for its name and from a trusted root.

use std::sync::Arc;
use std::time::Duration;

use loopabull_egress::{Egress, EgressLimits, RunEgress, SendError, TlsRoots, TlsRootsError};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;

use crate::test_server::{Server, answers, get, grants};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn root() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn server(root: &CertifiedIssuer<'static, KeyPair>, name: &str, answer: &'static str) -> Server {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Server::start_at("127.0.0.1:0".parse().unwrap(), Some(Arc::new(config)), move |wire| {
        wire.write_all(answer.as_bytes()).unwrap();
        wire.flush().unwrap();
    })
}

fn trusting(root: &CertifiedIssuer<'static, KeyPair>) -> TlsRoots {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), root.pem()).unwrap();
    TlsRoots::load(Some(file.path())).unwrap()
}

/// Begins a run that may send requests to this server, and returns the URL with the server's name.
fn run(server: &Server, tls_roots: TlsRoots) -> (RunEgress, String) {
    let (names, _) = answers(&[&["127.0.0.1"]]);
    let url = format!("https://pagure.internal:{}", server.address.port());
    let granted = grants(&format!("{{ url = '{url}', addresses = ['127.0.0.1'] }}"));
    (Egress::with_names(granted, EgressLimits::default(), tls_roots, names).begin_run(), url)
}

#[tokio::test]
async fn a_certificate_from_the_extra_root_is_trusted() {
    let root = root();
    let server = server(&root, "pagure.internal", OK);
    let (run, url) = run(&server, trusting(&root));
    assert_eq!(get(&run, &url).await.unwrap().body, "hello");
    let host = format!("host: pagure.internal:{}\r\n", server.address.port());
    assert!(server.head().contains(&host));
}

#[tokio::test]
async fn a_certificate_for_an_address_is_trusted() {
    let root = root();
    let server = server(&root, "127.0.0.1", OK);
    let url = format!("https://{}", server.address);
    let granted = grants(&format!("'{url}'"));
    let run = Egress::new(granted, EgressLimits::default(), trusting(&root)).begin_run();
    assert_eq!(get(&run, &url).await.unwrap().body, "hello");
}

#[tokio::test]
async fn a_certificate_from_another_root_is_refused() {
    let server = server(&root(), "pagure.internal", OK);
    let (run, url) = run(&server, trusting(&root()));
    let error = get(&run, &url).await.unwrap_err();
    assert!(matches!(error, SendError::Certificate { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("the certificate of `{url}` is not trusted"));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let root = root();
    let server = server(&root, "evil.internal", OK);
    let (run, url) = run(&server, trusting(&root));
    let error = get(&run, &url).await.unwrap_err();
    assert!(matches!(error, SendError::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn a_stalled_tls_handshake_exceeds_the_connect_timeout() {
    let server = Server::start(crate::test_server::until_closed);
    let url = format!("https://{}", server.address);
    let limits = EgressLimits { connect: Duration::from_millis(50), ..EgressLimits::default() };
    let run = Egress::new(grants(&format!("'{url}'")), limits, trusting(&root()));
    let error = get(&run.begin_run(), &url).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_truncated_body_over_tls_is_an_error() {
    let root = root();
    // The body ends with the connection, but the server sends no TLS close notification.
    let server = server(&root, "pagure.internal", "HTTP/1.1 200 OK\r\n\r\nhello");
    let (run, url) = run(&server, trusting(&root));
    let error = get(&run, &url).await.unwrap_err();
    assert!(matches!(error, SendError::Closed { .. }), "{error:?}");
}

#[test]
fn a_file_without_certificates_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = TlsRoots::load(Some(file.path())).unwrap_err();
    assert!(matches!(error, TlsRootsError::Empty { .. }), "{error:?}");
    let error = TlsRoots::load(Some("/nowhere/ca.pem".as_ref())).unwrap_err();
    assert_eq!(error.to_string(), "cannot read certificates from `/nowhere/ca.pem`");
}
