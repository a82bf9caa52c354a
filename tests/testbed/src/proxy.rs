//! A TCP proxy that can drop data, delay it, or cut its connections.
//!
//! The proxy does not know the protocol of the data. Each connection has two threads, one for each direction.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A TCP proxy on a free port of the loopback address.
///
/// The methods affect data that arrives after the call. A block of bytes that is being forwarded during the
/// call may still pass. On drop the proxy closes all connections and ends.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Notified when `holds` ends or a connection is closed.
    changed: Condvar,
    accepted: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    swallows: bool,
    holds: bool,
    ended: bool,
    connections: Vec<Arc<Connection>>,
}

/// The two sides of a connection.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Whether the data of the connection is dropped. Never becomes false again, because a stream with
    /// missing bytes is useless.
    is_swallowed: AtomicBool,
    is_closed: AtomicBool,
    /// The number of directions that have not ended.
    pumps: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy in front of an address.
    ///
    /// # Panics
    ///
    /// If the loopback address has no free port.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback address can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
            accepted: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.lock().ended {
                    return;
                }
                if let Ok(client) = client {
                    let shared = accepting.clone();
                    std::thread::spawn(move || shared.forward(client));
                }
            }
        });
        Self { address, shared }
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts or stops dropping data. While data is dropped, every connection stays open, and the end of a
    /// connection is not forwarded. A connection that was open during this time stays silent for good. Only
    /// connections that are opened afterwards forward data.
    pub fn swallow(&self, on: bool) {
        let mut state = self.shared.lock();
        state.swallows = on;
        for connection in &state.connections {
            connection.is_swallowed.fetch_or(on, Ordering::SeqCst);
        }
        // Wakes threads that hold data, because this data must be dropped too.
        self.shared.changed.notify_all();
    }

    /// Starts or stops holding data back. When holding stops, the held data is forwarded.
    pub fn hold(&self, on: bool) {
        self.shared.lock().holds = on;
        self.shared.changed.notify_all();
    }

    /// Closes all present connections on both sides. New connections are accepted.
    pub fn cut(&self) {
        let connections = std::mem::take(&mut self.shared.lock().connections);
        for connection in connections {
            connection.close();
        }
        self.shared.changed.notify_all();
    }

    /// Returns the number of connections to the target since the start.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of open connections. A silent connection counts until it is cut.
    pub fn open(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.cut();
        // Wakes the accepting thread, which then ends. If the connection fails, the thread has already ended.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the other side of a connection and forwards until both directions have ended.
    fn forward(self: Arc<Self>, client: TcpStream) {
        // If the target refuses the connection, the client's connection is closed.
        let Ok(server) = TcpStream::connect(self.target) else { return };
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let connection = {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let connection = Arc::new(Connection {
                client,
                server,
                is_swallowed: AtomicBool::new(state.swallows),
                is_closed: AtomicBool::new(false),
                pumps: AtomicUsize::new(2),
            });
            state.connections.push(connection.clone());
            self.accepted.fetch_add(1, Ordering::SeqCst);
            connection
        };
        let (shared, other) = (self.clone(), connection.clone());
        std::thread::spawn(move || shared.pump(&other, &other.server, &other.client));
        self.pump(&connection, &connection.client, &connection.server);
    }

    /// Forwards one direction until it ends.
    fn pump(&self, connection: &Arc<Connection>, mut from: &TcpStream, mut to: &TcpStream) {
        let mut block = vec![0; 64 << 10];
        let is_whole = loop {
            let length = from.read(&mut block);
            self.wait_while_held(connection);
            let is_swallowed = connection.is_swallowed.load(Ordering::SeqCst);
            match length {
                // A reset ends both directions.
                Err(_) if !is_swallowed => break false,
                Ok(0) if !is_swallowed => break to.shutdown(Shutdown::Write).is_ok(),
                // While data is dropped, the other side is not notified of the end.
                Ok(0) | Err(_) => return,
                Ok(_) if is_swallowed => (),
                Ok(length) => {
                    if to.write_all(&block[..length]).is_err() {
                        break false;
                    }
                }
            }
        };
        if !is_whole {
            connection.close();
        }
        if connection.pumps.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.lock().connections.retain(|other| !Arc::ptr_eq(other, connection));
        }
    }

    fn wait_while_held(&self, connection: &Connection) {
        let mut state = self.lock();
        while state.holds && !connection.is_over() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Connection {
    fn is_over(&self) -> bool {
        self.is_swallowed.load(Ordering::SeqCst) || self.is_closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Each call fails only if its side is already closed.
        drop((self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::time::Duration;

    use super::*;
    use crate::process::wait_until;

    /// The time without data after which a connection counts as silent.
    const SILENCE: Duration = Duration::from_millis(300);

    /// Starts a server that echoes everything.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                std::thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn check_echo(mut stream: &TcpStream, text: &[u8]) {
        stream.write_all(text).unwrap();
        check_received(stream, text);
    }

    fn check_received(mut stream: &TcpStream, text: &[u8]) {
        let mut received = vec![0; text.len()];
        stream.read_exact(&mut received).unwrap();
        assert_eq!(received, text);
    }

    fn check_silent(mut stream: &TcpStream) {
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        let error = stream
            .read(&mut [0])
            .expect_err("a silent connection delivers neither data nor its end");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }

    #[test]
    fn bytes_and_the_end_of_a_stream_are_forwarded() {
        let proxy = Proxy::start(echo());
        let mut stream = connect(&proxy);
        check_echo(&stream, b"one");
        assert_eq!((proxy.accepted(), proxy.open()), (1, 1));
        stream.write_all(b"two").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "two");
        wait_until("the connection to be over", || proxy.open() == 0);
        assert_eq!(proxy.accepted(), 1);
    }

    #[test]
    fn a_swallowed_connection_stays_silent_and_a_new_one_forwards() {
        let proxy = Proxy::start(echo());
        let old = connect(&proxy);
        check_echo(&old, b"one");
        proxy.swallow(true);
        (&old).write_all(b"two").unwrap();
        let between = connect(&proxy);
        (&between).write_all(b"two").unwrap();
        check_silent(&old);
        check_silent(&between);
        wait_until("the second connection", || proxy.open() == 2);
        proxy.swallow(false);
        (&old).write_all(b"three").unwrap();
        (&between).write_all(b"three").unwrap();
        check_silent(&old);
        check_silent(&between);
        check_echo(&connect(&proxy), b"four");
    }

    #[test]
    fn held_bytes_arrive_later() {
        let proxy = Proxy::start(echo());
        let stream = connect(&proxy);
        check_echo(&stream, b"one");
        proxy.hold(true);
        (&stream).write_all(b"two").unwrap();
        check_silent(&stream);
        proxy.hold(false);
        check_received(&stream, b"two");
        check_echo(&stream, b"three");
    }

    #[test]
    fn a_cut_closes_present_connections_even_held_and_swallowed_ones() {
        let check = |harm: fn(&Proxy)| {
            let proxy = Proxy::start(echo());
            let stream = connect(&proxy);
            check_echo(&stream, b"one");
            harm(&proxy);
            (&stream).write_all(b"two").unwrap();
            proxy.cut();
            let mut rest = Vec::new();
            // The stream ends or is reset. Data that was in flight may still arrive.
            if let Err(error) = (&stream).read_to_end(&mut rest) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
            assert_eq!(proxy.open(), 0);
            proxy.hold(false);
            proxy.swallow(false);
            check_echo(&connect(&proxy), b"three");
        };
        check(|_| ());
        check(|proxy| proxy.hold(true));
        check(|proxy| proxy.swallow(true));
    }

    #[test]
    fn a_target_that_refuses_connections_closes_the_clients_connection() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = Proxy::start(nobody);
        assert_eq!(connect(&proxy).read(&mut [0]).unwrap_or(0), 0);
        assert_eq!(proxy.accepted(), 0);
    }
}
