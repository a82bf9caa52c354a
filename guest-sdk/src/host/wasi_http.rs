//! Requests over `wasi:http/outgoing-handler@0.2`.
//!
//! Owns the order in which WASI wants things done: the body is written after the request is
//! handed over, and each resource is dropped before the one it came from. Comes after
//! `http::Request`, which has checked everything that can be checked here.

use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme as WireScheme, http_error_code,
};
use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::StreamError;

use crate::http::{Incoming, Outgoing, Scheme, Trouble};

/// What one write may have at most, says WASI.
const MAX_WRITE: usize = 4096;
/// What is asked for in one read.
const READ: u64 = 64 * 1024;

const USER_AGENT: &str = concat!("loopabull-task/", env!("CARGO_PKG_VERSION"));

/// Sends a request and waits for the whole answer.
pub(crate) fn send(request: &Outgoing<'_>) -> Result<Incoming, Trouble> {
    let timer = Timer::start(request.timeout);
    let wire = to_wire(request)?;
    let body = wire.body().map_err(|()| malformed())?;
    let future =
        outgoing_handler::handle(wire, Some(options(request.timeout)?)).map_err(trouble)?;
    write(body, request.body);
    let response = wait(&future, &timer)?;
    let status = response.status();
    let headers = response.headers().entries().into_iter();
    let headers =
        headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let body = read(&response, &timer, request.max_response_bytes)?;
    Ok(Incoming { status, headers, body })
}

fn to_wire(request: &Outgoing<'_>) -> Result<OutgoingRequest, Trouble> {
    let has =
        |name: &str| request.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut headers: Vec<(String, Vec<u8>)> = Vec::with_capacity(request.headers.len() + 2);
    for (name, value) in request.headers {
        headers.push((name.clone(), value.clone().into_bytes()));
    }
    if !has("user-agent") {
        headers.push(("user-agent".to_owned(), USER_AGENT.into()));
    }
    // Without it the body goes out in chunks, which not every site takes.
    let has_body = !request.body.is_empty() || !matches!(request.method, "GET" | "DELETE");
    if has_body && !has("content-length") {
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let headers = Fields::from_list(&headers)
        .map_err(|_| Trouble::Failed("the host does not let a header out".to_owned()))?;
    let wire = OutgoingRequest::new(headers);
    let method = match request.method {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    };
    let scheme = match request.url.scheme {
        Scheme::Http => WireScheme::Http,
        Scheme::Https => WireScheme::Https,
    };
    wire.set_method(&method)
        .and_then(|()| wire.set_scheme(Some(&scheme)))
        .and_then(|()| wire.set_authority(Some(&request.url.authority)))
        .and_then(|()| wire.set_path_with_query(Some(&request.url.path_and_query)))
        .map_err(|()| malformed())?;
    Ok(wire)
}

fn options(timeout: Duration) -> Result<RequestOptions, Trouble> {
    let options = RequestOptions::new();
    let timeout = Some(nanoseconds(timeout));
    options
        .set_connect_timeout(timeout)
        .and_then(|()| options.set_first_byte_timeout(timeout))
        .and_then(|()| options.set_between_bytes_timeout(timeout))
        .map_err(|()| malformed())?;
    Ok(options)
}

/// Writes the body of a request. What goes wrong here is told better by the answer.
fn write(body: OutgoingBody, bytes: &[u8]) {
    let Ok(stream) = body.write() else { return };
    for part in bytes.chunks(MAX_WRITE) {
        if stream.blocking_write_and_flush(part).is_err() {
            return;
        }
    }
    drop(stream);
    drop(OutgoingBody::finish(body, None));
}

fn wait(future: &FutureIncomingResponse, timer: &Timer) -> Result<IncomingResponse, Trouble> {
    let answered = future.subscribe();
    timer.wait(&answered)?;
    drop(answered);
    match future.get() {
        Some(Ok(answer)) => answer.map_err(trouble),
        Some(Err(())) | None => Err(malformed()),
    }
}

fn read(response: &IncomingResponse, timer: &Timer, limit: usize) -> Result<Vec<u8>, Trouble> {
    let incoming = response.consume().map_err(|()| malformed())?;
    let stream = incoming.stream().map_err(|()| malformed())?;
    let mut body = Vec::new();
    loop {
        timer.wait(&stream.subscribe())?;
        match stream.read(READ) {
            Ok(part) => body.extend_from_slice(&part),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => trouble(code),
                    None => Trouble::Failed("the answer broke off".to_owned()),
                });
            }
        }
        if body.len() > limit {
            return Err(Trouble::TooLarge);
        }
    }
}

/// The end of the time that a request has.
struct Timer {
    over: Pollable,
    timeout: Duration,
}

impl Timer {
    fn start(timeout: Duration) -> Self {
        Timer { over: monotonic_clock::subscribe_duration(nanoseconds(timeout)), timeout }
    }

    /// Waits until `ready` is, or the time is over.
    fn wait(&self, ready: &Pollable) -> Result<(), Trouble> {
        if poll::poll(&[ready, &self.over]).contains(&0) {
            return Ok(());
        }
        let milliseconds = self.timeout.as_millis();
        Err(Trouble::Failed(format!("no answer within {milliseconds} ms")))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn malformed() -> Trouble {
    Trouble::Failed("the host does not take the request".to_owned())
}

/// Returns what an error of the host means, as one plain clause.
fn trouble(code: ErrorCode) -> Trouble {
    let reason = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            return Trouble::Refused;
        }
        ErrorCode::HttpResponseBodySize(_) => return Trouble::TooLarge,
        ErrorCode::InternalError(Some(text)) => return Trouble::Failed(text),
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            "the site's name cannot be resolved"
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "the site cannot be reached"
        }
        ErrorCode::ConnectionRefused => "the connection was refused",
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            "the connection broke off"
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => "the site did not answer in time",
        ErrorCode::ConnectionLimitReached => "there are too many connections",
        ErrorCode::TlsCertificateError => "the site's certificate is not trusted",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "TLS failed",
        ErrorCode::HttpProtocolError => "the site does not speak HTTP",
        _ => "the request or its answer is not valid HTTP",
    };
    Trouble::Failed(reason.to_owned())
}
