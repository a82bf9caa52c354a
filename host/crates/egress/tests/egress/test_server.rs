//! A server with scripted answers, and functions that send requests to the server.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Egress, EgressLimits, NameTable, RunEgress, SendError, Timeouts, TlsRoots};
use loopabull_model::HttpGrant;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Deserialize;

/// Timeout of each step of a test.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A server connection: plain TCP or TLS.
pub(crate) trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// A server that counts its connections and returns the heads of the requests that it received.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    heads: mpsc::Receiver<String>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1. For each connection, the server reads the head of the
    /// request and then calls `answer`.
    pub(crate) fn start(answer: impl Fn(&mut dyn Wire) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None, answer)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&mut dyn Wire) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (heads_in, heads) = mpsc::channel();
        let (counter, answer) = (Arc::clone(&connections), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (heads, answer, tls) = (heads_in.clone(), Arc::clone(&answer), tls.clone());
                thread::spawn(move || serve(stream.unwrap(), tls, &heads, &*answer));
            }
        });
        Self { address, connections, heads }
    }

    /// Starts a server that answers every request with the same bytes.
    pub(crate) fn saying(answer: &'static str) -> Self {
        Self::start(move |wire| drop(wire.write_all(answer.as_bytes())))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns the head of the next request, including the request line.
    pub(crate) fn head(&self) -> String {
        self.heads.recv_timeout(TEST_TIMEOUT).unwrap()
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    heads: &mpsc::Sender<String>,
    answer: &dyn Fn(&mut dyn Wire),
) {
    let mut wire: Box<dyn Wire> = match tls {
        None => Box::new(stream),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match wire.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            // The TLS handshake failed, or the client closed the connection without a request.
            _ => return,
        }
    }
    heads.send(String::from_utf8(head).unwrap()).ok();
    answer(&mut *wire);
}

/// Waits until the client has closed the connection.
pub(crate) fn until_closed(wire: &mut dyn Wire) {
    let mut buffer = [0; 1024];
    while matches!(wire.read(&mut buffer), Ok(1..)) {}
}

#[derive(Deserialize)]
struct Grants {
    http: Vec<HttpGrant>,
}

/// Parses grants that are written as in a manifest.
pub(crate) fn grants(list: &str) -> Vec<HttpGrant> {
    toml::from_str::<Grants>(&format!("http = [{list}]")).unwrap().http
}

pub(crate) fn tls_roots() -> TlsRoots {
    static TLS_ROOTS: LazyLock<TlsRoots> = LazyLock::new(|| TlsRoots::load(None).unwrap());
    TLS_ROOTS.clone()
}

/// Begins a run with the grants in `list`.
pub(crate) fn run(list: &str) -> RunEgress {
    run_with(list, EgressLimits::default())
}

pub(crate) fn run_with(list: &str, limits: EgressLimits) -> RunEgress {
    Egress::new(grants(list), limits, tls_roots()).begin_run()
}

/// Returns a table for name look-ups, and a counter of the look-ups. Each look-up returns the next list, and
/// the last list is repeated.
pub(crate) fn answers(lists: &[&[&str]]) -> (Arc<NameTable>, Arc<AtomicUsize>) {
    let lists: Vec<Vec<IpAddr>> =
        lists.iter().map(|list| list.iter().map(|a| a.parse().unwrap()).collect()).collect();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let table = move |_: &str| {
        let index = counter.fetch_add(1, Ordering::SeqCst);
        Ok(lists[index.min(lists.len() - 1)].clone())
    };
    (Arc::new(table), count)
}

/// A response with its complete body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

pub(crate) async fn get(run: &RunEgress, url: &str) -> Result<Answer, SendError> {
    send(run, Request::get(url).body(Empty::<Bytes>::new()).unwrap()).await
}

pub(crate) async fn send<B>(run: &RunEgress, request: Request<B>) -> Result<Answer, SendError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    send_within(run, request, Timeouts::default()).await
}

pub(crate) async fn send_within<B>(
    run: &RunEgress,
    request: Request<B>,
    timeouts: Timeouts,
) -> Result<Answer, SendError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // This timeout is shorter than the default total timeout. So a test that expects a shorter timeout fails
    // if only the default timeout takes effect.
    let exchange = async {
        let (response, connection) = run.send(request, timeouts).await?;
        let (head, body) = response.into_parts();
        let (body, ()) = tokio::join!(body.collect(), connection);
        let body = String::from_utf8(body?.to_bytes().to_vec()).unwrap();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(TEST_TIMEOUT, exchange).await.unwrap()
}
