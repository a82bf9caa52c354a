//! The command `verify` checks the signatures of recorded messages.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use loopabull_fedmsg::{Verifier, envelope_of_recording};
use loopabull_model::Message;
use serde::Serialize;

use crate::clock;
use crate::commands::failure::{BAD_USAGE, DONE, FAILED, Failure};
use crate::commands::print_plain;
use crate::commands::recordings::{documents, read};
use crate::config::{Config, Verify};
use crate::ingest::signers::{self, SignersError};

/// Check the signatures of recorded fedmsg messages
///
/// A file contains one or more JSON documents. Each document is a complete fedmsg body, a message
/// in the format of datagrepper, an array of these, or an answer of datagrepper. The routing policy, and the defaults of `--ca` and
/// `--crl`, are taken from the configuration. The exit status is 0 only if every message would be
/// accepted.
///
/// Example: `loopabull-host verify --ca ca.crt --at 2023-01-01 recorded.json`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Files of messages, or `-` for standard input
    #[arg(required = true, value_name = "MESSAGE.json")]
    files: Vec<PathBuf>,
    /// Certificate of the CA (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate revocation list of the CA
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Check signatures as of this time, for example `2023-01-01T00:00:00Z` or `2023-01-01`
    /// [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Print a JSON object for each message
    #[arg(long)]
    json: bool,
}

/// The result for one message.
#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a str,
    /// Number of the document in the file, counted from 1.
    document: usize,
    accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// Metrics label of the rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

pub(crate) fn run(config: &Config, args: &VerifyArgs) -> Result<u8, Failure> {
    let mut fedmsg = config.fedmsg.clone();
    fedmsg.verify = Verify::Required;
    if let Some(ca) = &args.ca {
        // The configured revocation list belongs to the configured CA, so `--ca` discards it.
        (fedmsg.ca, fedmsg.crl) = (Some(ca.clone()), None);
    }
    if let Some(crl) = &args.crl {
        fedmsg.crl = Some(crl.clone());
    }
    let verifier = signers::verifier(&fedmsg).map_err(|error| match &error {
        SignersError::NoCa => Failure::with_hint(error, "name the CA certificate with `--ca FILE`")
            .with_code(BAD_USAGE),
        _ => error.into(),
    })?;
    let now = args.at.map_or_else(clock::now_seconds, Timestamp::as_second);
    let mut all = true;
    for file in &args.files {
        let name = file.to_string_lossy();
        // An unreadable or empty file counts as rejected; the other files are still checked.
        let verdicts = match read(file) {
            Ok(text) => messages(&text, &verifier, now).collect(),
            Err(error) => vec![Err(("file-unreadable", format!("{error:#}")))],
        };
        let none = || vec![Err(("no-message", "the file contains no message".to_owned()))];
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

/// The reason for a rejection: a metrics label and a description.
type Refused = (&'static str, String);

fn messages(
    text: &str,
    verifier: &Verifier,
    now: i64,
) -> impl Iterator<Item = Result<Message, Refused>> {
    documents(text).into_iter().map(move |document| {
        let document = document.map_err(|error| ("body-not-json", error))?;
        envelope_of_recording(document.as_bytes())
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
    time.ok_or_else(|| "expected a time such as 2023-01-01T00:00:00Z or 2023-01-01".to_owned())
}
