//! `verify`: whether signed messages would be accepted.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use loopabull_fedmsg::{Verifier, envelope_of_recording};
use loopabull_model::Message;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock;
use crate::commands::failure::{BAD_USAGE, DONE, FAILED, Failure};
use crate::commands::inject::read;
use crate::commands::print_plain;
use crate::config::{Config, Verify};
use crate::ingest::signers::{self, SignersError};

/// Say of recorded fedmsg messages whether their signatures would be accepted
///
/// A file holds one JSON document, or one on each line: whole fedmsg bodies, or what datagrepper writes.
/// Without `--ca` and `--crl` those of the configuration count, and its routing policy always does. The
/// exit code is 0 only if all are accepted.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Files, or `-` for standard input
    #[arg(required = true, value_name = "MESSAGE.json")]
    files: Vec<PathBuf>,
    /// The certificate of the CA, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Its list of revoked certificates
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// As if it were then: `2023-01-01T00:00:00Z`, or a day [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// One JSON object for each message
    #[arg(long)]
    json: bool,
}

/// What is said of one message.
#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a str,
    /// Which document of the file, from 1.
    document: usize,
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// The label under which the daemon counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

pub(crate) fn run(config: &Config, args: &VerifyArgs) -> Result<u8, Failure> {
    let mut fedmsg = config.fedmsg.clone();
    fedmsg.verify = Verify::Required;
    if let Some(ca) = &args.ca {
        // A list of the configuration is another CA's.
        (fedmsg.ca, fedmsg.crl) = (Some(ca.clone()), None);
    }
    if let Some(crl) = &args.crl {
        fedmsg.crl = Some(crl.clone());
    }
    let verifier = signers::verifier(&fedmsg).map_err(|error| match &error {
        SignersError::NoCa => {
            Failure::with_hint(error, "name it with `--ca FILE`").with_code(BAD_USAGE)
        }
        _ => error.into(),
    })?;
    let now = args.at.map_or_else(clock::now_seconds, Timestamp::as_second);
    let mut all = true;
    for file in &args.files {
        let name = file.to_string_lossy();
        // A file that cannot be read, or has no message, is not accepted, and the others have their turn.
        let verdicts = match read(file) {
            Ok(text) => messages(&text, &verifier, now).collect(),
            Err(error) => vec![Err(("file-unreadable", format!("{error:#}")))],
        };
        let none = || vec![Err(("no-message", "there is no message in it".to_owned()))];
        let verdicts = if verdicts.is_empty() { none() } else { verdicts };
        for (number, message) in verdicts.into_iter().enumerate() {
            all &= message.is_ok();
            let verdict = Verdict::new(&name, number + 1, message);
            let line =
                if args.json { serde_json::to_string(&verdict)? } else { verdict.to_string() };
            print_plain(&format!("{line}\n"))?;
        }
    }
    Ok(if all { DONE } else { FAILED })
}

/// Why a document is not accepted: its label, and a sentence.
type Refused = (&'static str, String);

fn messages(
    text: &str,
    verifier: &Verifier,
    now: i64,
) -> impl Iterator<Item = Result<Message, Refused>> {
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    std::iter::from_fn(move || documents.next()).map(move |document| {
        let document = document
            .map_err(|error| ("body-not-json", format!("{error}; the rest was not read")))?;
        envelope_of_recording(document.get().as_bytes())
            .and_then(|envelope| verifier.verify(envelope, now))
            .map_err(|rejection| (rejection.reason(), rejection.to_string()))
    })
}

impl<'a> Verdict<'a> {
    fn new(file: &'a str, document: usize, message: Result<Message, Refused>) -> Self {
        let none = Self {
            file,
            document,
            accepted: false,
            topic: None,
            signer: None,
            reason: None,
            detail: None,
        };
        match message {
            Ok(Message { topic, signer, .. }) => {
                Self { accepted: true, topic: Some(topic.to_string()), signer, ..none }
            }
            Err((reason, detail)) => Self { reason: Some(reason), detail: Some(detail), ..none },
        }
    }
}

impl std::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
        write!(f, "{}:{}: ", self.file, self.document)?;
        match self.reason {
            None => {
                write!(
                    f,
                    "accepted: signed by {} for {}",
                    or_none(&self.signer),
                    or_none(&self.topic)
                )
            }
            Some(reason) => write!(f, "rejected ({reason}): {}", or_none(&self.detail)),
        }
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let time = text.parse().ok().or_else(|| Some(day()?.timestamp()));
    time.ok_or_else(|| "it must be like 2023-01-01T00:00:00Z or 2023-01-01".to_owned())
}
