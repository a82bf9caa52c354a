//! The import `wasi:http`, with which a guest sends HTTP requests. The crate `egress` checks each request
//! against the grants of the task, and sends it. All requests of a task without an HTTP grant are denied.
//!
//! This module only converts requests, responses and errors between the types of wasmtime and those of
//! `egress`.

use http_body_util::BodyExt;
use loopabull_egress::{Denied, ResponseBody, RunEgress, SendError, Timeouts};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// HTTP access of a run; `None` if the task has no HTTP grant.
pub(crate) struct EgressHooks(pub(crate) Option<RunEgress>);

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type SendResult = Result<(http::Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for EgressHooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let egress = self.0.clone();
        Box::new(async move {
            let egress = egress.ok_or(Error::HttpRequestDenied)?;
            let options = options.unwrap_or_default();
            let timeouts = Timeouts {
                connect: options.connect_timeout,
                first_byte: options.first_byte_timeout,
                between_bytes: options.between_bytes_timeout,
            };
            let (response, connection) =
                egress.send(request, timeouts).await.map_err(to_wasi_error)?;
            let response = response
                .map(|body: ResponseBody| body.map_err(to_wasi_error).boxed_unsync() as WasiBody);
            let io: Io = Box::new(async move {
                connection.await;
                Ok(())
            });
            Ok((response, io))
        })
    }

    /// Returns false, because the egress sets the header `host` from the granted origin.
    fn set_host_header(&mut self) -> bool {
        false
    }
}

/// Returns the error that the guest receives. The record of the run has the full error.
fn to_wasi_error(error: SendError) -> Error {
    match error {
        SendError::Denied(Denied::Address { .. }) => Error::DestinationIpProhibited,
        SendError::Denied(Denied::UriTooLong { .. }) => Error::HttpRequestUriTooLong,
        SendError::Denied(Denied::Authority { .. } | Denied::Target { .. }) => {
            Error::HttpRequestUriInvalid
        }
        SendError::Denied(Denied::Method { .. }) => Error::HttpRequestMethodInvalid,
        SendError::Denied(Denied::HeaderBytes { .. } | Denied::HeaderCount { .. }) => {
            Error::HttpRequestHeaderSectionSize(None)
        }
        SendError::Denied(Denied::BodyTooLarge { limit })
        | SendError::RequestBodySize { limit } => Error::HttpRequestBodySize(Some(limit)),
        SendError::Denied(Denied::Concurrent { .. } | Denied::Requests { .. }) => {
            Error::ConnectionLimitReached
        }
        SendError::Denied(_) => Error::HttpRequestDenied,
        SendError::Resolve { .. } => Error::DnsError { rcode: None, info_code: None },
        SendError::NoAddress { .. } => Error::DestinationNotFound,
        SendError::Connect { .. } => Error::ConnectionRefused,
        SendError::Tls { .. } => Error::TlsProtocolError,
        SendError::Certificate { .. } => Error::TlsCertificateError,
        SendError::ConnectTimeout { .. } => Error::ConnectionTimeout,
        SendError::FirstByteTimeout { .. } | SendError::TotalTimeout { .. } => {
            Error::HttpResponseTimeout
        }
        SendError::BetweenBytesTimeout { .. } => Error::ConnectionReadTimeout,
        SendError::ResponseHead { .. } => Error::HttpResponseHeaderSectionSize(None),
        SendError::ResponseBody { limit, .. } => Error::HttpResponseBodySize(Some(limit)),
        SendError::Upgraded { .. } => Error::HttpUpgradeFailed,
        SendError::Closed { .. } => Error::HttpResponseIncomplete,
        SendError::Protocol { .. } => Error::HttpProtocolError,
        error @ (SendError::RequestBody { .. } | SendError::RequestBodyLength) => {
            Error::InternalError(Some(error.to_string()))
        }
    }
}
