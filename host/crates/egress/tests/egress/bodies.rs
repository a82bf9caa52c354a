//! Heads and bodies that are too large, incomplete or malformed.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use loopabull_egress::{Denied, EgressLimits, ExchangeFailure, SendError, Timeouts};

use crate::test_server::{Server, get, run, run_with, send, until_closed};

/// A body with this number of pieces, whose length is not declared.
struct Pieces(usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'a'; 1024])))))
    }
}

/// A body whose pieces arrive when the test sends them.
struct Later(tokio::sync::mpsc::UnboundedReceiver<Bytes>);

impl Body for Later {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

async fn check_response(limits: EgressLimits, answer: &'static str, is: fn(&SendError) -> bool) {
    let server = Server::saying(answer);
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = get(&run, &server.url()).await.unwrap_err();
    assert!(is(&error), "{error:?}");
    assert!(matches!(run.exchanges()[0].failure, Some(ExchangeFailure::Failed(_))));
}

#[tokio::test]
async fn an_endless_response_exceeds_the_size_limit() {
    let server = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while wire.write_all(&[b'a'; 1024]).is_ok() {}
    });
    let limits = EgressLimits { response_body_bytes: 100_000, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let error = get(&run, &server.url()).await.unwrap_err();
    assert!(matches!(error, SendError::ResponseBody { limit: 100_000, .. }), "{error:?}");
    let exchange = &run.exchanges()[0];
    assert_eq!(exchange.status, Some(200));
    assert!(exchange.received_bytes < 1_000_000, "{}", exchange.received_bytes);
    assert!(matches!(exchange.failure, Some(ExchangeFailure::Failed(_))));
}

#[tokio::test]
async fn a_response_of_exactly_the_limit_is_accepted() {
    let server = Server::saying("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    let limits = EgressLimits { response_body_bytes: 5, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    assert_eq!(get(&run, &server.url()).await.unwrap().body, "hello");
}

#[tokio::test]
async fn a_truncated_response_is_an_error() {
    let limits = EgressLimits::default();
    let is_closed = |error: &SendError| matches!(error, SendError::Closed { .. });
    check_response(limits, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", is_closed).await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    check_response(limits, chunked, is_closed).await;
    check_response(limits, "HTTP/1.1 200", is_closed).await;
    check_response(limits, "", is_closed).await;
}

#[tokio::test]
async fn a_response_that_is_not_http_is_an_error() {
    let is_protocol = |error: &SendError| matches!(error, SendError::Protocol { .. });
    check_response(EgressLimits::default(), "220 ftp.example ready\r\n\r\n", is_protocol).await;
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    check_response(EgressLimits::default(), two, is_protocol).await;
}

#[tokio::test]
async fn a_large_response_head_is_an_error() {
    let limits = EgressLimits { header_bytes: 1000, headers: 3, ..EgressLimits::default() };
    let is_head = |error: &SendError| matches!(error, SendError::ResponseHead { .. });
    let many = "HTTP/1.1 200 OK\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n";
    check_response(limits, many, is_head).await;
    let long: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "a".repeat(1000)).into_boxed_str());
    check_response(limits, long, is_head).await;
}

#[tokio::test]
async fn a_dropped_connection_ends_the_body_in_an_error() {
    let server = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
        until_closed(wire);
    });
    let run = run(&format!("'{}'", server.url()));
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let (response, connection) = run.send(request, Timeouts::default()).await.unwrap();
    drop(connection);
    let error = response.into_body().collect().await.unwrap_err();
    assert!(matches!(error, SendError::Closed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_request_body_beyond_the_limit_is_an_error() {
    let server = Server::start(until_closed);
    let limits = EgressLimits { request_body_bytes: 10 * 1024, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let request = Request::post(server.url()).body(Pieces(11)).unwrap();
    let error = send(&run, request).await.unwrap_err();
    assert!(matches!(error, SendError::RequestBodySize { limit: 10_240 }), "{error:?}");
    let request = Request::post(server.url()).body(Full::new(Bytes::from(vec![0; 10_241])));
    let error = send(&run, request.unwrap()).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::BodyTooLarge { .. })), "{error:?}");
}

#[tokio::test]
async fn a_request_body_with_a_wrong_content_length_is_an_error() {
    let server = Server::start(until_closed);
    let run = run(&format!("'{}'", server.url()));
    for (length, pieces) in [("1025", 1), ("1023", 1), ("5", 0)] {
        let request = Request::post(server.url()).header("content-length", length);
        let error = send(&run, request.body(Pieces(pieces)).unwrap()).await.unwrap_err();
        assert!(matches!(error, SendError::RequestBodyLength), "{error:?}");
    }
    let request = Request::post(server.url()).header("content-length", "5");
    let error = send(&run, request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap_err();
    assert!(matches!(error, SendError::RequestBodyLength), "{error:?}");
}

#[tokio::test]
async fn an_aborted_request_body_is_an_error() {
    let server = Server::start(until_closed);
    let run = run(&format!("'{}'", server.url()));
    let body = Pieces(1).map_err(Box::<dyn std::error::Error + Send + Sync>::from);
    let body = body.with_trailers(std::future::ready(Some(Err("broken".into()))));
    let error = send(&run, Request::post(server.url()).body(body).unwrap()).await.unwrap_err();
    assert!(matches!(error, SendError::RequestBody { .. }), "{error:?}");
}

#[tokio::test]
async fn a_request_body_that_fails_after_the_response_began_is_reported() {
    let server = Server::start(|wire| {
        write!(wire, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .unwrap();
        until_closed(wire);
    });
    let limits = EgressLimits { request_body_bytes: 5, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let (pieces, body) = tokio::sync::mpsc::unbounded_channel();
    let request = Request::post(server.url()).body(Later(body)).unwrap();
    let (response, connection) = run.send(request, Timeouts::default()).await.unwrap();
    pieces.send(Bytes::from_static(b"too large")).unwrap();
    let (body, ()) = tokio::join!(response.into_body().collect(), connection);
    let error = body.unwrap_err();
    assert!(matches!(error, SendError::RequestBody { .. }), "{error:?}");
    let expected = "the request body was not completed: the body is larger than 5 bytes";
    let failure = run.exchanges()[0].failure.clone();
    assert_eq!(failure, Some(ExchangeFailure::Failed(expected.into())));
}
