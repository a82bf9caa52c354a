//! Denied requests open no connection.

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use loopabull_egress::{Denied, ExchangeFailure, SendError};

use crate::test_server::{Server, get, run, send};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Starts a server and grants its origin. Checks that a request to the URL from `url` is denied.
async fn check(url: impl Fn(&Server) -> String, expected: &str) {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let error = get(&run, &url(&server)).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(_)), "{error:?}");
    assert!(error.to_string().contains(expected), "{error}");
    let exchange = &run.exchanges()[0];
    assert_eq!(exchange.status, None);
    assert_eq!(exchange.failure, Some(ExchangeFailure::Denied(error.to_string().into())));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn another_host_is_denied() {
    check(
        |_| "https://evil.example/".to_owned(),
        "`https://evil.example` is not granted: \
         add \"https://evil.example\" to http under [grants]",
    )
    .await;
}

#[tokio::test]
async fn another_port_is_denied() {
    check(|_| "http://127.0.0.1/".to_owned(), "`http://127.0.0.1` is not granted").await;
}

#[tokio::test]
async fn another_scheme_is_denied() {
    check(|server| server.url().replace("http:", "https:"), "is not granted").await;
    check(|server| server.url().replace("http:", "ftp:"), "scheme `ftp` is neither").await;
}

#[tokio::test]
async fn a_user_in_the_url_is_denied() {
    check(|server| format!("http://{}@evil.example/", server.address), "it has a user").await;
    check(|server| format!("http://evil.example@{}/", server.address), "it has a user").await;
    check(|server| format!("http://evil.example#@{}/", server.address), "is not granted").await;
}

#[tokio::test]
async fn another_spelling_of_the_granted_address_is_denied() {
    let name = |server: &Server| format!("http://localhost:{}/", server.address.port());
    check(name, "is not granted").await;
    let short = |server: &Server| format!("http://127.1:{}/", server.address.port());
    check(short, "ends in a number and is not an IPv4 address").await;
}

#[tokio::test]
async fn an_ipv4_mapped_address_counts_as_ipv4() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let mapped = format!("http://[::ffff:127.0.0.1]:{}/", server.address.port());
    get(&run, &mapped).await.unwrap();
    assert!(server.head().contains(&format!("host: {}\r\n", server.address)));
    let other = format!("http://[::ffff:127.0.0.2]:{}/", server.address.port());
    let error = get(&run, &other).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::NotGranted { .. })), "{error:?}");
}

#[tokio::test]
async fn a_target_without_an_origin_is_denied() {
    for target in ["/path", "*", "evil.example:443"] {
        check(|_| target.to_owned(), "scheme `` is neither http nor https").await;
    }
}

#[test]
fn a_target_with_another_host_cannot_be_built() {
    let uri = Uri::builder().scheme("http").authority("good.example");
    uri.path_and_query("http://evil.example/").build().unwrap_err();
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_target_is_denied() {
    let server = Server::saying(
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\n\
         content-length: 0\r\n\r\n",
    );
    let run = run(&format!("'{}'", server.url()));
    let answer = get(&run, &server.url()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 302);
    let location = answer.headers["location"].to_str().unwrap();
    let error = get(&run, location).await.unwrap_err();
    assert!(error.to_string().starts_with("`http://169.254.169.254` is not granted"), "{error}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_overlong_url_is_denied() {
    check(|server| format!("{}/{}", server.url(), "a".repeat(8192)), "longer than 8192 bytes")
        .await;
}

#[tokio::test]
async fn two_content_lengths_are_denied() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let request = Request::post(server.url())
        .header("content-length", "0")
        .header("content-length", "5")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let error = send(&run, request).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::ContentLength)), "{error:?}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn the_method_connect_is_denied() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let request = Request::builder().method("CONNECT").uri(server.url());
    let error = send(&run, request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::Method { .. })), "{error:?}");
}

#[tokio::test]
async fn a_switch_to_another_protocol_is_an_error() {
    let server = Server::saying(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    );
    let run = run(&format!("'{}'", server.url()));
    let error = get(&run, &server.url()).await.unwrap_err();
    assert!(matches!(error, SendError::Upgraded { .. }), "{error:?}");
}
