//! Granted requests reach the server as intended.

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};
use loopabull_egress::Exchange;

use crate::test_server::{Server, get, run, send};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello";

#[tokio::test]
async fn a_granted_request_is_answered() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let answer = get(&run, &format!("{}/path?query=1", server.url())).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "hello"));
    assert_eq!(answer.headers["x-a"], "b");
    let expected = format!(
        "GET /path?query=1 HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        server.address
    );
    assert_eq!(server.head(), expected);
}

#[tokio::test]
async fn a_body_is_sent_with_its_length_or_in_chunks() {
    let server = Server::start(|wire| {
        let mut body = [0; 9];
        wire.read_exact(&mut body).unwrap();
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").unwrap();
        wire.write_all(&body).unwrap();
    });
    let run = run(&format!("'{}'", server.url()));
    let request = Request::post(server.url()).body(Full::new(Bytes::from("some body"))).unwrap();
    let answer = send(&run, request).await.unwrap();
    assert_eq!(answer.body, "some body");
    let head = server.head();
    assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-length: 9\r\n"), "{head}");
    let exchange = &run.exchanges()[0];
    assert_eq!((exchange.sent_bytes, exchange.received_bytes), (9, 9));
}

#[tokio::test]
async fn a_name_is_looked_up_by_the_system() {
    let server = Server::saying(OK);
    let url = format!("http://localhost:{}", server.address.port());
    let run = run(&format!("{{ url = '{url}', addresses = ['127.0.0.1', '::1'] }}"));
    assert_eq!(get(&run, &url.to_uppercase().replace("HTTP", "http")).await.unwrap().body, "hello");
    assert!(server.head().contains(&format!("host: localhost:{}\r\n", server.address.port())));
}

#[tokio::test]
async fn an_ipv6_address_is_reached() {
    let server = Server::start_at("[::1]:0".parse().unwrap(), None, |wire| {
        wire.write_all(OK.as_bytes()).unwrap();
    });
    let run = run(&format!("'{}'", server.url()));
    assert_eq!(get(&run, &server.url()).await.unwrap().body, "hello");
    assert!(server.head().contains(&format!("host: [::1]:{}\r\n", server.address.port())));
}

#[tokio::test]
async fn each_request_uses_a_new_connection() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    get(&run, &server.url()).await.unwrap();
    get(&run, &server.url()).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_forged_host_header_is_not_sent() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    let request = Request::get(server.url())
        .header("host", "evil.example")
        .header("host", "worse.example")
        .header("transfer-encoding", "chunked")
        .header("upgrade", "websocket")
        .body(Empty::<Bytes>::new())
        .unwrap();
    send(&run, request).await.unwrap();
    let head = server.head();
    assert_eq!(head.matches("host: ").count(), 1, "{head}");
    assert!(!head.contains("evil") && !head.contains("upgrade"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn an_exchange_is_recorded_without_its_query() {
    let server = Server::saying(OK);
    let run = run(&format!("'{}'", server.url()));
    get(&run, &format!("{}/a/b?token=secret", server.url())).await.unwrap();
    let expected = Exchange {
        method: "GET".to_owned(),
        origin: server.url(),
        path: "/a/b".to_owned(),
        status: Some(200),
        failure: None,
        sent_bytes: 0,
        received_bytes: 5,
    };
    assert_eq!(run.exchanges(), [expected]);
}
