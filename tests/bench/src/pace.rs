//! A fedmsg publisher that sends at a steady rate, with a raw subscriber beside it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use zmq::SocketType;

use crate::body::{TOPIC, bus_message};
use crate::burst::RECEIVE_LIMIT;

/// The time in which subscribers connect before the first message.
const CONNECT: Duration = Duration::from_secs(4);

/// Publishes messages and prints when each was sent and received.
pub(crate) fn publish(endpoint: &str, rate: u32, messages: u32) -> Result<()> {
    let context = zmq::Context::new();
    let socket = context.socket(SocketType::PUB)?;
    socket.set_sndhwm(0)?;
    socket.bind(endpoint)?;
    let subscriber = context.socket(SocketType::SUB)?;
    subscriber.set_rcvhwm(0)?;
    subscriber.set_rcvtimeo(RECEIVE_LIMIT)?;
    subscriber.connect(endpoint)?;
    subscriber.set_subscribe(b"")?;
    std::thread::sleep(CONNECT);
    let receive = move || -> Result<Vec<f64>> {
        (0..messages)
            .map(|_| {
                subscriber.recv_multipart(0).context("the subscriber misses a message")?;
                now()
            })
            .collect()
    };
    let received = std::thread::spawn(receive);
    let (start, mut sent) = (Instant::now(), Vec::new());
    for number in 0..messages {
        let due = Duration::from_secs(1) * number / rate;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let body = bus_message(TOPIC, number).to_string();
        sent.push(now()?);
        socket.send_multipart([TOPIC, &body], 0)?;
    }
    let received = received.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
    ensure!(received.len() == sent.len(), "{} of {messages} were received", received.len());
    for (number, (sent, received)) in sent.iter().zip(received).enumerate() {
        println!("2026-{number:08} {sent:.3} {received:.3}");
    }
    Ok(())
}

/// Returns the time in milliseconds since 1970.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1e3)
}
