//! The timeout of each step of an exchange.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use loopabull_egress::{EgressLimits, SendError, Timeouts};

use crate::test_server::{Server, run, run_with, send, send_within, until_closed};

const SHORT: Duration = Duration::from_millis(50);

fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_silent_server_exceeds_the_first_byte_timeout() {
    let server = Server::start(until_closed);
    let limits = EgressLimits { first_byte: SHORT, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = send(&run, request(&server.url())).await.unwrap_err();
    assert!(matches!(error, SendError::FirstByteTimeout { limit: SHORT, .. }), "{error:?}");
    let expected = format!("`{}` did not begin a response within 50ms", server.url());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_stalled_response_exceeds_the_between_bytes_timeout() {
    let server = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").unwrap();
        until_closed(wire);
    });
    let limits = EgressLimits { between_bytes: SHORT, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = send(&run, request(&server.url())).await.unwrap_err();
    assert!(matches!(error, SendError::BetweenBytesTimeout { .. }), "{error:?}");
    assert_eq!(run.exchanges()[0].received_bytes, 5);
}

#[tokio::test]
async fn an_endless_body_exceeds_the_total_timeout() {
    let server = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while wire.write_all(&[b'a'; 1024]).is_ok() {}
    });
    let limits = EgressLimits {
        total: Duration::from_millis(200),
        response_body_bytes: u64::MAX,
        ..EgressLimits::default()
    };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = send(&run, request(&server.url())).await.unwrap_err();
    assert!(matches!(error, SendError::TotalTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_component_can_shorten_a_timeout_but_not_extend_it() {
    let server = Server::start(until_closed);
    let run = run(&format!("'{}'", server.url()));
    let less = Timeouts { first_byte: Some(SHORT), ..Timeouts::default() };
    let error = send_within(&run, request(&server.url()), less).await.unwrap_err();
    assert!(matches!(error, SendError::FirstByteTimeout { limit: SHORT, .. }), "{error:?}");

    let limits = EgressLimits { first_byte: SHORT, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let more = Timeouts { first_byte: Some(Duration::MAX), ..Timeouts::default() };
    let error = send_within(&run, request(&server.url()), more).await.unwrap_err();
    assert!(matches!(error, SendError::FirstByteTimeout { limit: SHORT, .. }), "{error:?}");
}

#[tokio::test]
async fn a_timeout_of_zero_expires_at_once() {
    let silent = Server::start(until_closed);
    let half = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").unwrap();
        until_closed(wire);
    });
    let run = run(&format!("'{}', '{}'", silent.url(), half.url()));
    let none = Some(Duration::ZERO);
    let asked = Timeouts { connect: none, ..Timeouts::default() };
    let error = send_within(&run, request(&silent.url()), asked).await.unwrap_err();
    assert!(matches!(error, SendError::ConnectTimeout { .. }), "{error:?}");
    let asked = Timeouts { first_byte: none, ..Timeouts::default() };
    let error = send_within(&run, request(&silent.url()), asked).await.unwrap_err();
    assert!(matches!(error, SendError::FirstByteTimeout { .. }), "{error:?}");
    let asked = Timeouts { between_bytes: none, ..Timeouts::default() };
    let error = send_within(&run, request(&half.url()), asked).await.unwrap_err();
    assert!(matches!(error, SendError::BetweenBytesTimeout { .. }), "{error:?}");
}

#[tokio::test]
async fn maximum_timeouts_do_not_overflow() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let limits = EgressLimits {
        connect: Duration::MAX,
        first_byte: Duration::MAX,
        between_bytes: Duration::MAX,
        total: Duration::MAX,
        ..EgressLimits::default()
    };
    let run = run_with(&format!("'{}'", server.url()), limits);
    send(&run, request(&server.url())).await.unwrap();
}
