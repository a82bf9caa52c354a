//! A fedmsg publisher that sends everything at once and drops nothing, and a subscriber that only receives.

use std::io::{self, BufRead};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use zmq::SocketType;

use crate::body::TOPIC;

/// The time limit of a subscriber for a message, in milliseconds.
pub(crate) const RECEIVE_LIMIT: i32 = 30_000;

/// Publishes each line of a file after a line on standard input, and returns the seconds. Ends with standard input.
pub(crate) fn publish(endpoint: &str, file: &Path) -> Result<f64> {
    let lines = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    let context = zmq::Context::new();
    let socket = context.socket(SocketType::PUB)?;
    // fedmsg's default, `high_water_mark = 0`, is no limit.
    socket.set_sndhwm(0)?;
    socket.bind(endpoint)?;
    println!("bound");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let start = Instant::now();
    for line in lines.lines() {
        socket.send_multipart([TOPIC, line], 0)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    while io::stdin().lock().read_line(&mut line)? > 0 {}
    Ok(seconds)
}

/// Receives messages, and returns the seconds from the first to the last.
pub(crate) fn receive(endpoint: &str, messages: u32) -> Result<f64> {
    let context = zmq::Context::new();
    let socket = context.socket(SocketType::SUB)?;
    socket.set_rcvhwm(0)?;
    socket.set_rcvtimeo(RECEIVE_LIMIT)?;
    socket.connect(endpoint)?;
    socket.set_subscribe(b"")?;
    socket.recv_multipart(0).context("the subscriber receives nothing")?;
    let start = Instant::now();
    for _ in 1..messages {
        socket.recv_multipart(0).context("the subscriber misses a message")?;
    }
    Ok(start.elapsed().as_secs_f64())
}
