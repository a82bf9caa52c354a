//! The import `emit`, with which a guest sends messages. The host sends them only after the run has
//! succeeded.

use loopabull_model::{Body, Counted, Emission, Exceeded, Topic, is_harmful};

use crate::bindings::loopabull::task::emit;
use crate::host::{Host, LimitExceeded};

/// The maximum number of messages that a run may send.
const MAX_MESSAGES: u64 = 100;
/// The maximum size of all messages of a run together, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// The maximum number of headers of a message.
const MAX_HEADERS: usize = 64;
/// The maximum length of a header name, in bytes. AMQP encodes header names as short strings.
const MAX_NAME_BYTES: usize = 255;
/// The maximum size of all headers of a message together, in bytes.
const MAX_HEADER_BYTES: usize = 32 << 10;

impl emit::Host for Host {
    fn publish(
        &mut self,
        topic: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> wasmtime::Result<Result<(), String>> {
        // The size is checked before the JSON is parsed, because parsed JSON takes much more memory than its
        // text.
        let bytes = self
            .emitted
            .iter()
            .map(|sent| bytes(sent.topic.as_str(), &sent.headers, sent.body.as_str().len()))
            .sum::<u64>()
            + bytes(&topic, &headers, body.len());
        if bytes > MAX_BYTES {
            return Err(limit(Counted::EmittedBytes, MAX_BYTES, bytes));
        }
        let emission = match self.emission(topic, headers, body) {
            Ok(emission) => emission,
            Err(reason) => return Ok(Err(reason)),
        };
        self.emitted.push(emission);
        let messages = self.emitted.len() as u64;
        if messages > MAX_MESSAGES {
            return Err(limit(Counted::Emitted, MAX_MESSAGES, messages));
        }
        Ok(Ok(()))
    }
}

impl Host {
    fn emission(
        &self,
        topic: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> Result<Emission, String> {
        let topic = Topic::try_from(topic).map_err(|error| error.to_string())?;
        if !self.capabilities.emit.iter().any(|pattern| pattern.matches(&topic)) {
            return Err(format!(
                "the topic `{topic}` is not granted; add it to `emit` under `[grants]`"
            ));
        }
        let limit = Emission::MAX_HOPS;
        if self.hops >= limit {
            return Err(format!("the chain of emitted messages has reached its limit of {limit}"));
        }
        check_headers(&headers)?;
        let body = String::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
        let body =
            Body::parse(&body).map_err(|error| format!("the body cannot be sent: {error}"))?;
        let in_headers = headers.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let texts: Vec<&str> = in_headers.chain([topic.as_str(), body.as_str()]).collect();
        let mask = &self.capabilities.mask;
        if let Some(secret) = texts.iter().find_map(|text| mask.find(text.as_bytes())) {
            return Err(format!("the message contains the secret `{secret}`"));
        }
        Ok(Emission { topic, headers, body })
    }
}

fn check_headers(headers: &[(String, String)]) -> Result<(), String> {
    if headers.len() > MAX_HEADERS {
        return Err(format!("a message has at most {MAX_HEADERS} headers"));
    }
    for (name, value) in headers {
        if name.is_empty() || name.to_ascii_lowercase().starts_with(Emission::HEADER_PREFIX) {
            return Err(format!(
                "header names must not be empty or begin with `{}`, which the host reserves",
                Emission::HEADER_PREFIX
            ));
        }
        if name.len() > MAX_NAME_BYTES || [name, value].iter().any(|t| t.chars().any(is_harmful)) {
            return Err(format!(
                "a header has a name of more than {MAX_NAME_BYTES} bytes or contains a control \
                 character"
            ));
        }
    }
    // AMQP puts all headers of a message into one frame. The frames of the bus have 128 KiB, so the size of
    // all headers is limited.
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(format!("the headers have {bytes} bytes, the limit is {MAX_HEADER_BYTES}"));
    }
    Ok(())
}

fn bytes(topic: &str, headers: &[(String, String)], body: usize) -> u64 {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    (topic.len() + headers + body) as u64
}

fn limit(what: Counted, allowed: u64, wanted: u64) -> wasmtime::Error {
    LimitExceeded(Exceeded::Count { what, allowed, wanted }).into()
}
