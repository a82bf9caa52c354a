//! The bus of the demo: a ZeroMQ socket on the loopback address.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use zmq::{Socket, SocketType};

use super::messages::Script;
use crate::interrupt::Interrupt;

/// The time limit of one wait for a subscription, in milliseconds.
const TICK: i32 = 100;

/// A publisher that can also read subscriptions. For a subscriber it behaves like a PUB socket.
pub(crate) struct Publisher {
    socket: Socket,
    endpoint: String,
}

impl Publisher {
    /// Binds a free port.
    pub(crate) fn bind() -> Result<Self> {
        let bind = || -> zmq::Result<(Socket, String)> {
            let socket = zmq::Context::new().socket(SocketType::XPUB)?;
            socket.set_linger(0)?;
            socket.set_rcvtimeo(TICK)?;
            socket.set_sndhwm(0)?;
            socket.bind("tcp://127.0.0.1:*")?;
            let endpoint = socket.get_last_endpoint()?;
            Ok((socket, endpoint.unwrap_or_else(|bytes| String::from_utf8_lossy(&bytes).into())))
        };
        let (socket, endpoint) = bind().context("cannot bind a ZeroMQ socket")?;
        Ok(Self { socket, endpoint })
    }

    /// Returns the address to which a subscriber connects.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits until all topics of a script are subscribed to, because messages that are sent earlier are lost.
    pub(crate) fn wait_for_subscriber(
        &self,
        script: &Script,
        deadline: Instant,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut prefixes: Vec<Vec<u8>> = Vec::new();
        let wanted = |prefixes: &[Vec<u8>]| {
            let is_wanted = |topic: &[u8]| prefixes.iter().any(|prefix| topic.starts_with(prefix));
            script.messages.iter().all(|frames| is_wanted(&frames[0]))
        };
        while !wanted(&prefixes) {
            ensure!(!interrupt.is_set(), "interrupted");
            ensure!(Instant::now() < deadline, "the daemon did not subscribe to the messages");
            match self.socket.recv_bytes(0) {
                // In ZMTP, a subscription is the byte 1 and a prefix. The byte 0 and a prefix cancel it.
                Ok(message) if message.first() == Some(&1) => prefixes.push(message[1..].to_vec()),
                Ok(_) | Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => (),
                Err(error) => return Err(anyhow!(error).context("cannot receive subscriptions")),
            }
        }
        Ok(())
    }

    /// Publishes all messages of a script.
    pub(crate) fn send(&self, script: &Script) -> Result<()> {
        for frames in &script.messages {
            self.socket.send_multipart(frames, 0).context("cannot publish a message")?;
        }
        Ok(())
    }
}
