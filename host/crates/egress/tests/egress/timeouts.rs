//! Every wait has a limit.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use loopabull_egress::{EgressLimits, SendError, Timeouts};

use crate::bed::{Server, run, run_with, send, send_within, until_closed};

const SHORT: Duration = Duration::from_millis(50);

fn request(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_silent_server_meets_the_limit_of_the_first_byte() {
    let server = Server::start(until_closed);
    let limits = EgressLimits { first_byte: SHORT, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = send(&run, request(&server.url())).await.unwrap_err();
    assert!(matches!(error, SendError::FirstByteTimeout { limit: SHORT, .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("`{}` began no response within 50ms", server.url()));
}

#[tokio::test]
async fn a_server_that_stops_meets_the_limit_between_bytes() {
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
async fn a_body_without_end_meets_the_limit_of_the_whole() {
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
async fn a_component_may_ask_for_less_and_not_for_more() {
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
async fn a_timeout_of_nothing_ends_at_once() {
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
async fn endless_limits_do_not_overflow() {
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
