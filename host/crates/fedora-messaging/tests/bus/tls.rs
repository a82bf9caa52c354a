//! TLS: the certificates of the broker and of the client, and the errors if one of them is rejected.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use loopabull_fedora_messaging::{Bus, BusConfig, TlsFiles};
use loopabull_testbed::{Rabbit, TlsNode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::fixture::{Fixture, config, take, wait_for_problem, wait_for_reconnect};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A folder with certificates.
struct Folder(tempfile::TempDir);

#[derive(Clone, Copy)]
enum Age {
    Good,
    Expired,
}

impl Folder {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn authority(&self, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = Authority::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(self.path(&format!("{name}.crt")), authority.pem()).unwrap();
        authority
    }

    /// Writes a certificate and its key. `name` is both the common name and the host name.
    fn certificate(&self, file: &str, by: &Authority, name: &str, age: Age) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if matches!(age, Age::Expired) {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let certificate = params.signed_by(&key, by).unwrap();
        std::fs::write(self.path(&format!("{file}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn files(&self, authority: &str, certificate: &str) -> TlsFiles {
        TlsFiles {
            ca_cert: Some(self.path(&format!("{authority}.crt"))),
            keyfile: Some(self.path(&format!("{certificate}.key"))),
            certfile: Some(self.path(&format!("{certificate}.crt"))),
        }
    }
}

/// All cases are in one test, because starting the node is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_logs_in_or_the_error_says_why_not() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let (ca, other) = (folder.authority("ca"), folder.authority("other"));
    folder.certificate("server", &ca, "localhost", Age::Good);
    folder.certificate("client", &ca, "a-user", Age::Good);
    folder.certificate("stranger", &ca, "no-such-user", Age::Good);
    folder.certificate("expired", &ca, "a-user", Age::Expired);
    folder.certificate("other-client", &other, "a-user", Age::Good);
    let [authority, certificate, key] =
        ["ca.crt", "server.crt", "server.key"].map(|name| folder.path(name));
    let files = TlsNode { authority: &authority, certificate: &certificate, key: &key };
    let rabbit: &'static Rabbit = Box::leak(Box::new(Rabbit::start_with_tls(files)));
    let mut fixture = Fixture::on(rabbit);
    rabbit.ctl(&["add_user", "a-user", "not-used"]);
    rabbit.ctl(&["set_permissions", "-p", &fixture.vhost.name, "a-user", ".*", ".*", ".*"]);
    let mut config = fixture.config();
    let port = rabbit.tls_address().port();
    config.amqp_url = format!("amqps://localhost:{port}/{}", fixture.vhost.name);

    config.tls = folder.files("ca", "client");
    let mut bus = fixture.start(&config).await;
    let list = ["list_connections", "--no-table-headers", "user", "auth_mechanism", "ssl"];
    let connections = rabbit.ctl(&list);
    assert!(connections.contains("a-user\tEXTERNAL\ttrue\n"), "{connections}");
    fixture.publisher.number(1);
    take(&mut bus, [1]).await;
    bus.close().await;

    let file = |name: &str| folder.path(name).display().to_string();
    for (files, expected) in [
        (
            folder.files("other", "client"),
            format!(
                "the certificate of `localhost` is not signed by an authority in `{}`",
                file("other.crt")
            ),
        ),
        (
            folder.files("ca", "other-client"),
            format!(
                "`localhost` rejects the client certificate in `{}`: its authority is unknown to the broker",
                file("other-client.crt")
            ),
        ),
        (
            folder.files("ca", "expired"),
            format!(
                "`localhost` rejects the client certificate in `{}`: it has expired",
                file("expired.crt")
            ),
        ),
        (
            folder.files("ca", "stranger"),
            "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL".to_owned(),
        ),
        (
            folder.files("ca", "missing"),
            format!(
                "cannot read the `certfile` file `{}`: No such file or directory",
                file("missing.crt")
            ),
        ),
        (
            TlsFiles { keyfile: Some(folder.path("missing.key")), ..folder.files("ca", "client") },
            format!("cannot read the `keyfile` file `{}`: No such file", file("missing.key")),
        ),
        (
            TlsFiles { keyfile: Some(folder.path("ca.crt")), ..folder.files("ca", "client") },
            format!("the `keyfile` file `{}` contains no private key", file("ca.crt")),
        ),
        (
            TlsFiles { keyfile: Some(folder.path("stranger.key")), ..folder.files("ca", "client") },
            "cannot be used".to_owned(),
        ),
        (
            TlsFiles { keyfile: None, ..folder.files("ca", "client") },
            "`certfile` is set without `keyfile`".to_owned(),
        ),
        (
            TlsFiles { keyfile: None, certfile: None, ..folder.files("ca", "client") },
            "`localhost` requires a client certificate, but `certfile` is not set".to_owned(),
        ),
    ] {
        config.tls = files;
        check(&config, &expected).await;
    }

    // The broker's certificate is for `localhost`, and not for 127.0.0.1.
    config.tls = folder.files("ca", "client");
    config.amqp_url = config.amqp_url.replace("localhost", "127.0.0.1");
    check(&config, "the certificate of `127.0.0.1` is for another name").await;

    // Each connection reads the files again, so the bus uses the renewed certificate.
    config.amqp_url = config.amqp_url.replace("127.0.0.1", "localhost");
    config.tls = folder.files("ca", "expired");
    let mut bus = Bus::start(&config).unwrap();
    wait_for_problem(&bus, "it has expired").await;
    let start = Instant::now();
    folder.certificate("expired", &ca, "a-user", Age::Good);
    wait_for_reconnect(&bus, 1, "an expired certificate", start).await;
    fixture.publisher.number(2);
    take(&mut bus, [2]).await;
}

#[tokio::test]
async fn a_broker_with_an_expired_certificate_is_rejected() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let ca = folder.authority("ca");
    folder.certificate("server", &ca, "localhost", Age::Expired);
    let port = serve(&folder.path("server.crt"), &folder.path("server.key"));
    let mut config = config(&format!("amqps://localhost:{port}/"));
    config.tls.ca_cert = Some(folder.path("ca.crt"));
    check(&config, "the certificate of `localhost` has expired").await;
}

async fn check(config: &BusConfig, expected: &str) {
    let bus = Bus::start(config).unwrap();
    let problem = wait_for_problem(&bus, "").await;
    assert!(problem.contains(expected), "{problem}");
    assert!(problem.starts_with("RabbitMQ at `"), "{problem}");
}

/// Starts a server that only completes TLS handshakes, and returns its port.
fn serve(certificate: &Path, key: &Path) -> u16 {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate).unwrap()],
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            // The result is ignored, because the client may reject the certificate.
            drop(connection.complete_io(&mut stream.unwrap()));
        }
    });
    port
}
