//! A run makes so many requests, and so many at once.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Denied, EgressLimits, SendError, Timeouts};

use crate::bed::{LIMIT, Server, get, run_with, until_closed};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_run_makes_so_many_requests() {
    let server = Server::saying(OK);
    let limits = EgressLimits { requests: 2, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    get(&run, &server.url()).await.unwrap();
    get(&run, "http://evil.example/").await.unwrap_err();
    for _ in 0..3 {
        let error = get(&run, &server.url()).await.unwrap_err();
        assert!(matches!(error, SendError::Denied(Denied::Requests { limit: 2 })), "{error:?}");
    }
    assert_eq!((run.exchanges().len(), run.requests_beyond_limit()), (2, 3));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_run_makes_so_many_requests_at_once() {
    let server = Server::saying(OK);
    let limits = EgressLimits { at_once: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let under_way = run.send(request, Timeouts::default()).await.unwrap();
    let error = get(&run, &server.url()).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::AtOnce { limit: 1 })), "{error:?}");
    drop(under_way);
    get(&run, &server.url()).await.unwrap();
}

#[tokio::test]
async fn a_response_that_was_read_takes_no_place() {
    let server = Server::saying(OK);
    let empty = Server::saying("HTTP/1.1 204 No Content\r\n\r\n");
    let limits = EgressLimits { at_once: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}', '{}'", server.url(), empty.url()), limits);
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let (mut read, connection) = run.send(request, Timeouts::default()).await.unwrap();
    tokio::join!(async { while read.frame().await.is_some() {} }, connection);

    let request = Request::get(empty.url()).body(Empty::<Bytes>::new()).unwrap();
    let _unread = run.send(request, Timeouts::default()).await.unwrap();
    get(&run, &server.url()).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_cut_off_gives_its_place_back() {
    let server = Server::start(until_closed);
    let limits = EgressLimits { at_once: 1, ..EgressLimits::default() };
    let run = run_with(&format!("'{}'", server.url()), limits);
    {
        let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
        let waiting = run.send(request, Timeouts::default());
        let mut waiting = std::pin::pin!(waiting);
        let seen = tokio::time::timeout(LIMIT, async {
            while server.connections() == 0 {
                tokio::task::yield_now().await;
            }
        });
        tokio::select! {
            _ = &mut waiting => panic!("nobody answers"),
            seen = seen => seen.unwrap(),
        }
    }
    let exchange = &run.exchanges()[0];
    assert_eq!((exchange.status, &exchange.trouble), (None, &None));
    let error = get(&run, "http://evil.example/").await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::NotGranted { .. })), "{error:?}");
}
