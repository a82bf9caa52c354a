//! Escapes through HTTP: requests reach only granted origins, even if a part of the request tries to name
//! another site.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;

use super::{add_probe, check, operations};
use crate::site::{Site, answer};
use crate::test_host::{TestHost, text};

fn hello() -> Site {
    Site::start(|_| answer("200 OK", "hello"))
}

/// Returns a test host whose probe has the grant `http` with this list, written as in a manifest.
fn host(list: &str) -> TestHost {
    let host = TestHost::new();
    add_probe(&host, &format!("http = [{list}]"));
    host
}

/// Returns the operation of the probe that sends a GET request to this authority.
fn get(authority: &str) -> String {
    format!("http GET http {authority} /")
}

#[test]
fn a_granted_origin_is_called_and_similar_origins_are_denied() {
    let (site, other) = (hello(), hello());
    let host = host(&format!("'{}'", site.url()));
    let (port, other_port) = (site.port(), other.port());
    let granted = get(&format!("127.0.0.1:{port}"));
    let port_of_other = get(&format!("127.0.0.1:{other_port}"));
    let loopback = get(&format!("127.0.0.2:{port}"));
    let name = get(&format!("localhost:{port}"));
    let tls = format!("http GET https 127.0.0.1:{port} /");
    let said = check(
        &host,
        &[
            (&granted, "ok 200 hello"),
            (&port_of_other, "HttpRequestDenied"),
            (&loopback, "HttpRequestDenied"),
            (&name, "HttpRequestDenied"),
            (&tls, "HttpRequestDenied"),
            (&get("127.0.0.1"), "HttpRequestDenied"),
            (&get("example.org"), "HttpRequestDenied"),
        ],
    );
    let denied = |origin: &str, warning: &str| {
        format!(
            "GET {origin}/: denied: `{origin}` is not granted{warning}: \
             add \"{origin}\" to http under [grants]"
        )
    };
    let private = ", and its address is not public";
    assert_eq!(
        said.called(),
        [
            format!("GET http://127.0.0.1:{port}/: 200, 0 bytes out, 5 in"),
            denied(&format!("http://127.0.0.1:{other_port}"), private),
            denied(&format!("http://127.0.0.2:{port}"), private),
            denied(&format!("http://localhost:{port}"), ""),
            denied(&format!("https://127.0.0.1:{port}"), private),
            denied("http://127.0.0.1", private),
            denied("http://example.org", ""),
        ]
    );
    assert_eq!((site.asked().len(), other.asked().len()), (1, 0));
}

#[test]
fn a_name_that_resolves_to_this_machine_needs_its_address_in_the_grant() {
    let site = hello();
    let url = format!("http://localhost:{}", site.port());
    let request = get(&format!("localhost:{}", site.port()));
    let said = check(&host(&format!("'{url}'")), &[(&request, "DestinationIpProhibited")]);
    let line = said.called()[0].to_owned();
    assert!(line.contains(&format!("denied: `{url}` resolves to `")), "{line}");
    assert!(line.contains(&format!("which is not public: add {{ url = \"{url}\", ")), "{line}");
    assert_eq!(site.asked().len(), 0);

    let host = host(&format!("{{ url = '{url}', addresses = ['127.0.0.1'] }}"));
    check(&host, &[(&request, "ok 200 hello")]);
    assert_eq!(site.asked()[0].header("host"), [format!("localhost:{}", site.port())]);
}

#[test]
fn a_redirect_is_returned_unchanged_and_its_target_is_denied() {
    let metadata = "http://169.254.169.254/latest/meta-data";
    let site = Site::start(move |_| {
        format!("HTTP/1.1 302 Found\r\nlocation: {metadata}\r\ncontent-length: 0\r\n\r\n")
    });
    let request = get(&format!("127.0.0.1:{}", site.port()));
    let said = check(
        &host(&format!("'{}'", site.url())),
        &[
            (&request, &format!("ok 302 to {metadata}")),
            ("http GET http 169.254.169.254 /latest/meta-data", "HttpRequestDenied"),
        ],
    );
    let origin = "http://169.254.169.254";
    assert_eq!(
        said.called()[1],
        format!(
            "GET {metadata}: denied: `{origin}` is not granted, and its address is not public: \
             add \"{origin}\" to http under [grants]"
        )
    );
    assert_eq!(site.asked().len(), 1);
}

#[test]
fn an_address_in_another_notation_gives_no_more_access() {
    let site = hello();
    let port = site.port();
    let mapped = get(&format!("[::ffff:127.0.0.1]:{port}"));
    // The mapped address is the same as 127.0.0.1, so only a grant for 127.0.0.1 allows it.
    check(&host(&format!("'{}'", site.url())), &[(&mapped, "ok 200 hello")]);
    assert_eq!(site.asked()[0].header("host"), [format!("127.0.0.1:{port}")]);
    let other = host("'http://example.org'");
    let said = check(&other, &[(&mapped, "HttpRequestDenied")]);
    assert!(said.called()[0].contains(&format!("`http://127.0.0.1:{port}` is not granted, ")));
    let odd = ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1."];
    let odd: Vec<_> = odd.iter().map(|host| get(&format!("{host}:{port}"))).collect();
    let expected: Vec<_> = odd.iter().map(|o| (o.as_str(), "HttpRequestUriInvalid")).collect();
    check(&host(&format!("'{}'", site.url())), &expected);
    assert_eq!(site.asked().len(), 1);
}

#[test]
fn request_parts_that_name_another_site_are_refused() {
    let (site, other) = (hello(), hello());
    let good = format!("127.0.0.1:{}", site.port());
    let evil = format!("127.0.0.1:{}", other.port());
    let host = host(&format!("'{}'", site.url()));
    let expected = [
        // A user name stands before the host.
        (get(&format!("{good}@{evil}")), "HttpRequestUriInvalid"),
        (get(&format!("user@{good}")), "HttpRequestUriInvalid"),
        (get(&format!("user:word@{good}")), "HttpRequestUriInvalid"),
        (get(&format!("{evil}#@{good}")), "authority refused"),
        (get(&format!("{good}/@{evil}")), "authority refused"),
        (get(&format!("{evil}\\@{good}")), "authority refused"),
        // The host is missing, or the port is not valid.
        (get("-"), "HttpRequestUriInvalid"),
        (get("127.0.0.1:"), "HttpRequestUriInvalid"),
        (get("127.0.0.1:0"), "HttpRequestUriInvalid"),
        (get("127.0.0.1:99999"), "HttpRequestUriInvalid"),
        // The target is more than a path.
        (format!("http GET http {good} http://{evil}/"), "path refused"),
        (format!("http GET http {good} {evil}/"), "path refused"),
        (format!("http GET http {good} *"), "path refused"),
        (format!("http GET http {good} /\\r\\nhost:evil"), "path refused"),
        // The default scheme is https, which is not granted.
        (format!("http GET - {good} /"), "HttpRequestDenied"),
        (format!("http GET ftp {good} /"), "HttpProtocolError"),
        (format!("http CONNECT http {good} /"), "HttpRequestMethodInvalid"),
        // Headers that belong to the connection.
        (format!("http GET http {good} / host:{evil}"), "header: Forbidden"),
        (format!("http GET http {good} / connection:upgrade"), "header: Forbidden"),
        (format!("http GET http {good} / proxy-authorization:x"), "header: Forbidden"),
        (
            format!("http GET http {good} / content-length:1 content-length:2"),
            "header: InvalidSyntax",
        ),
        // The path looks like the address of another site, but is a path of the granted site.
        (format!("http GET http {good} //{evil}/"), "ok 200 hello"),
    ];
    let expected: Vec<_> = expected.iter().map(|(o, result)| (o.as_str(), *result)).collect();
    check(&host, &expected);
    assert_eq!(other.asked().len(), 0);
    let asked = site.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].head.starts_with(&format!("GET //{evil}/ HTTP/1.1\r\n")), "{asked:?}");
    assert_eq!(asked[0].header("host"), [good]);
}

#[test]
fn a_certificate_is_trusted_only_if_ca_file_has_its_root() {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let site =
        Site::start_at(([127, 0, 0, 1], 0).into(), Some(tls(&root)), |_| answer("200 OK", "hello"));
    let url = format!("https://127.0.0.1:{}", site.port());
    let request = format!("http GET https 127.0.0.1:{} /", site.port());
    let host = host(&format!("'{url}'"));
    let said = check(&host, &[(&request, "TlsCertificateError")]);
    let line = said.called()[0].to_owned();
    let expected = format!("GET {url}/: failed: the certificate of `{url}` is not trusted: ");
    assert!(line.starts_with(&expected), "{line}");
    assert_eq!(site.asked().len(), 0);

    host.write("ca.pem", root.pem());
    let ca = host.path("ca.pem");
    host.write("host.toml", format!("[http]\nca_file = '{}'\n", ca.display()));
    host.write("message.json", operations("m-1", [request.as_str()]));
    let output = host.run(&["--config", "host.toml", "test", "probe", "message.json"]);
    let said = text(&output.stdout);
    assert!(said.contains(&format!("info: {request}: ok 200 hello\n")), "{said}");
}

/// Returns a configuration with a certificate for 127.0.0.1 that this root signed.
fn tls(root: &CertifiedIssuer<'static, KeyPair>) -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

#[test]
fn the_record_of_a_run_has_its_calls_and_grants() {
    let site = hello();
    let host = host(&format!("'{}'", site.url()));
    let granted = get(&format!("127.0.0.1:{}", site.port()));
    let daemon = host.start(&[]);
    host.inject(&[operations("m-1", [granted.as_str(), get("169.254.169.254").as_str()])]);
    daemon.wait_until_idle();
    daemon.stop();
    let run = &host.runs()[0];
    let url = site.url();
    let calls = [
        format!("GET {url}/: 200, 0 bytes out, 5 in"),
        "GET http://169.254.169.254/: denied: `http://169.254.169.254` is not granted, and its address is not public: \
         add \"http://169.254.169.254\" to http under [grants]"
            .to_owned(),
    ];
    assert_eq!(run.usage.requests, calls);
    assert_eq!(run.grants, [format!("call {url}")]);
    let shown = text(&host.run(&["runs", "show", run.id.as_str()]).stdout);
    for call in &calls {
        let is_there = |line: &str| line.starts_with("called ") && line.trim_end().ends_with(call);
        assert!(shown.lines().any(is_there), "`{call}` is not in:\n{shown}");
    }
}
