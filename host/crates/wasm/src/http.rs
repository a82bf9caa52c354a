//! What `wasi:http` answers: requests go through the egress of the task, or nowhere.
//!
//! Knows how wasmtime hands a request over and what a guest may be told of its end; what is granted is
//! the egress's.

use http_body_util::BodyExt;
use loopabull_egress::{Denied, ResponseBody, RunEgress, SendError, Timeouts};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// A run's way out.
pub(crate) struct Gate(pub(crate) Option<RunEgress>);

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = Result<(http::Response<WasiBody>, Io), Error>;

impl WasiHttpHooks for Gate {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        let egress = self.0.clone();
        Box::new(async move {
            let egress = egress.ok_or(Error::HttpRequestDenied)?;
            let options = options.unwrap_or_default();
            let timeouts = Timeouts {
                connect: options.connect_timeout,
                first_byte: options.first_byte_timeout,
                between_bytes: options.between_bytes_timeout,
            };
            let (response, connection) = egress.send(request, timeouts).await.map_err(told)?;
            let response =
                response.map(|body: ResponseBody| body.map_err(told).boxed_unsync() as WasiBody);
            let io: Io = Box::new(async move {
                connection.await;
                Ok(())
            });
            Ok((response, io))
        })
    }

    /// The egress sets it, from the origin that was granted.
    fn set_host_header(&mut self) -> bool {
        false
    }
}

/// Returns what a guest is told. The whole story is in the record of the run.
fn told(error: SendError) -> Error {
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
        SendError::Denied(Denied::AtOnce { .. } | Denied::Requests { .. }) => {
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
