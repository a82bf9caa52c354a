//! The limits on the number of requests of a run, in total and at the same time.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Denied, EgressLimits, SendError, Timeouts};

use crate::test_server::{Server, TEST_TIMEOUT, get, run_with, until_closed};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn requests_beyond_the_total_limit_are_denied() {
    let server = Server::saying(OK);
    let limits = EgressLimits { requests: 2, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    get(&run, &server.url()).await.unwrap();
    get(&run, "http://evil.example/").await.unwrap_err();
    for _ in 0..3 {
        let error = get(&run, &server.url()).await.unwrap_err();
        assert!(matches!(error, SendError::Denied(Denied::Requests { limit: 2 })), "{error:?}");
    }
    assert_eq!((run.exchanges().len(), run.requests_over_limit()), (2, 3));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn concurrent_requests_beyond_the_limit_are_denied() {
    let server = Server::saying(OK);
    let limits = EgressLimits { concurrent: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let in_progress = run.send(request, Timeouts::default()).await.unwrap();
    let error = get(&run, &server.url()).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::Concurrent { limit: 1 })), "{error:?}");
    drop(in_progress);
    get(&run, &server.url()).await.unwrap();
}

#[tokio::test]
async fn a_finished_response_does_not_count_as_in_progress() {
    let server = Server::saying(OK);
    let empty = Server::saying("HTTP/1.1 204 No Content\r\n\r\n");
    let limits = EgressLimits { concurrent: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}', '{}'", server.url(), empty.url()), limits);
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let (mut read, connection) = run.send(request, Timeouts::default()).await.unwrap();
    tokio::join!(async { while read.frame().await.is_some() {} }, connection);

    let request = Request::get(empty.url()).body(Empty::<Bytes>::new()).unwrap();
    let _unread = run.send(request, Timeouts::default()).await.unwrap();
    get(&run, &server.url()).await.unwrap();
}

#[tokio::test]
async fn an_aborted_request_does_not_count_as_in_progress() {
    let server = Server::start(until_closed);
    let limits = EgressLimits { concurrent: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    {
        let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
        let waiting = run.send(request, Timeouts::default());
        let mut waiting = std::pin::pin!(waiting);
        let connected = tokio::time::timeout(TEST_TIMEOUT, async {
            while server.connections() == 0 {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            _ = &mut waiting => panic!("the request ended although the server does not answer"),
            connected = connected => connected.unwrap(),
        }
    }
    let exchange = &run.exchanges()[0];
    assert_eq!((exchange.status, &exchange.failure), (None, &None));
    let error = get(&run, "http://evil.example/").await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::NotGranted { .. })), "{error:?}");
}
