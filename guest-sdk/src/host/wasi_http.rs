//! Sends HTTP requests through `wasi:http/outgoing-handler@0.2`.
//!
//! WASI requires a certain order of calls: the body is written after the request was passed to the host, and
//! each resource is dropped before its parent. This module keeps to that order. `http::Request` checks a
//! request and then calls this module.

use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme as WireScheme, http_error_code,
};
use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::StreamError;

use super::exchange::{Incoming, Outgoing, SendError};
use crate::url::Scheme;

/// The maximum size of one write, in bytes, as WASI defines it.
const MAX_WRITE: usize = 4096;
/// The size of one read, in bytes.
const READ_SIZE: u64 = 64 * 1024;

const USER_AGENT: &str = concat!("loopabull-task/", env!("CARGO_PKG_VERSION"));

/// Sends a request and waits for the complete response.
pub(crate) fn send(request: &Outgoing<'_>) -> Result<Incoming, SendError> {
    let timer = Timer::start(request.timeout);
    let wire = to_wire(request)?;
    let body = wire.body().map_err(|()| malformed())?;
    let future =
        outgoing_handler::handle(wire, Some(options(request.timeout)?)).map_err(to_send_error)?;
    write(body, request.body);
    let response = wait(&future, &timer)?;
    let status = response.status();
    let headers = response.headers().entries().into_iter();
    let headers =
        headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned())).collect();
    let body = read(&response, &timer, request.max_response_bytes)?;
    Ok(Incoming { status, headers, body })
}

fn to_wire(request: &Outgoing<'_>) -> Result<OutgoingRequest, SendError> {
    let has =
        |name: &str| request.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut headers: Vec<(String, Vec<u8>)> = Vec::with_capacity(request.headers.len() + 2);
    for (name, value) in request.headers {
        headers.push((name.clone(), value.clone().into_bytes()));
    }
    if !has("user-agent") {
        headers.push(("user-agent".to_owned(), USER_AGENT.into()));
    }
    // Some servers refuse a body in chunks, so the request gets the header `content-length`.
    let has_body = !request.body.is_empty() || !matches!(request.method, "GET" | "DELETE");
    if has_body && !has("content-length") {
        headers.push(("content-length".to_owned(), request.body.len().to_string().into_bytes()));
    }
    let headers = Fields::from_list(&headers)
        .map_err(|_| SendError::Failed("the host does not accept a header".to_owned()))?;
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

fn options(timeout: Duration) -> Result<RequestOptions, SendError> {
    let options = RequestOptions::new();
    let timeout = Some(nanoseconds(timeout));
    options
        .set_connect_timeout(timeout)
        .and_then(|()| options.set_first_byte_timeout(timeout))
        .and_then(|()| options.set_between_bytes_timeout(timeout))
        .map_err(|()| malformed())?;
    Ok(options)
}

/// Writes the body of a request. Errors are ignored here: if the body could not be sent, waiting for the
/// response returns an error or the server's answer.
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

fn wait(future: &FutureIncomingResponse, timer: &Timer) -> Result<IncomingResponse, SendError> {
    let ready = future.subscribe();
    timer.wait(&ready)?;
    drop(ready);
    match future.get() {
        Some(Ok(response)) => response.map_err(to_send_error),
        Some(Err(())) | None => Err(malformed()),
    }
}

fn read(response: &IncomingResponse, timer: &Timer, limit: usize) -> Result<Vec<u8>, SendError> {
    let incoming = response.consume().map_err(|()| malformed())?;
    let stream = incoming.stream().map_err(|()| malformed())?;
    let mut body = Vec::new();
    loop {
        timer.wait(&stream.subscribe())?;
        match stream.read(READ_SIZE) {
            Ok(part) => body.extend_from_slice(&part),
            Err(StreamError::Closed) => return Ok(body),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => to_send_error(code),
                    None => SendError::Failed("the response is incomplete".to_owned()),
                });
            }
        }
        if body.len() > limit {
            return Err(SendError::TooLarge);
        }
    }
}

/// The timeout of a request.
struct Timer {
    expired: Pollable,
    timeout: Duration,
}

impl Timer {
    fn start(timeout: Duration) -> Self {
        Timer { expired: monotonic_clock::subscribe_duration(nanoseconds(timeout)), timeout }
    }

    /// Waits until `ready` is ready. Returns an error if the timeout expires first.
    fn wait(&self, ready: &Pollable) -> Result<(), SendError> {
        if poll::poll(&[ready, &self.expired]).contains(&0) {
            return Ok(());
        }
        let milliseconds = self.timeout.as_millis();
        Err(SendError::Failed(format!("no response within {milliseconds} ms")))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn malformed() -> SendError {
    SendError::Failed("the host does not accept the request".to_owned())
}

/// Converts an error of the host. Its text becomes one clause without a period.
fn to_send_error(code: ErrorCode) -> SendError {
    let reason = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            return SendError::Refused;
        }
        ErrorCode::HttpResponseBodySize(_) => return SendError::TooLarge,
        ErrorCode::InternalError(Some(text)) => return SendError::Failed(text),
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            "the host name cannot be resolved"
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "the server cannot be reached"
        }
        ErrorCode::ConnectionRefused => "the connection was refused",
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            "the connection was closed early"
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => "the server did not respond in time",
        ErrorCode::ConnectionLimitReached => "there are too many connections",
        ErrorCode::TlsCertificateError => "the server's certificate is not trusted",
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "TLS failed",
        ErrorCode::HttpProtocolError => "the server does not speak HTTP",
        _ => "the request or the response is not valid HTTP",
    };
    SendError::Failed(reason.to_owned())
}
