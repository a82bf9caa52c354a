//! A fedmsg publisher that sends everything at once and drops nothing.

use std::io::{self, BufRead};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use zmq::SocketType;

pub(crate) const TOPIC: &str = "org.example.prod.greeting.new";

/// Publishes each line of a file after a line on standard input, and returns the seconds. Ends with standard input.
pub(crate) fn publish(endpoint: &str, file: &Path) -> Result<f64> {
    let lines = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    let context = zmq::Context::new();
    let socket = context.socket(SocketType::PUB)?;
    // fedmsg's default, `high_water_mark = 0`, is no limit.
    socket.set_sndhwm(0)?;
    socket.bind(endpoint)?;
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
