//! What `emit` answers: messages are kept back until the run has succeeded.

use loopabull_model::{Body, Counted, Emission, Exceeded, Topic, is_harmful};

use crate::bindings::loopabull::task::emit;
use crate::host::{Host, LimitReached};

/// How many messages a run may send.
const MAX_MESSAGES: u64 = 100;
/// How many bytes the messages of a run may have together.
const MAX_BYTES: u64 = 4 << 20;
/// How many headers a message may have.
const MAX_HEADERS: usize = 64;
/// The longest name of a header, in bytes: AMQP carries it as a short string.
const MAX_NAME_BYTES: usize = 255;
/// How many bytes the headers of a message may have together.
const MAX_HEADER_BYTES: usize = 32 << 10;

impl emit::Host for Host {
    fn publish(
        &mut self,
        topic: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    ) -> wasmtime::Result<Result<(), String>> {
        // Before it is read: as a tree, JSON takes a multiple of its bytes.
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
        let most = Emission::MOST_HOPS;
        if self.hops >= most {
            return Err(format!("the message comes of {most} others, one because of the other"));
        }
        check_headers(&headers)?;
        let body = String::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
        let body =
            Body::parse(&body).map_err(|error| format!("the body cannot be sent: {error}"))?;
        let in_headers = headers.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let texts: Vec<&str> = in_headers.chain([topic.as_str(), body.as_str()]).collect();
        let mask = &self.capabilities.mask;
        if let Some(secret) = texts.iter().find_map(|text| mask.find(text.as_bytes())) {
            return Err(format!("the message holds the secret `{secret}`"));
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
                "headers that begin with `{}` are the host's",
                Emission::HEADER_PREFIX
            ));
        }
        if name.len() > MAX_NAME_BYTES || [name, value].iter().any(|t| t.chars().any(is_harmful)) {
            return Err(format!(
                "the name of a header has more than {MAX_NAME_BYTES} bytes, or the header holds a control \
                 character"
            ));
        }
    }
    // What a bus of AMQP takes has its headers in one frame of 128 KiB.
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
    LimitReached(Exceeded::Count { what, allowed, wanted }).into()
}
