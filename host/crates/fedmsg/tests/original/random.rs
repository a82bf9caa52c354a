//! One long test: both verifiers, this crate and the Python fedmsg, verify the same random messages.
#![expect(clippy::print_stdout, reason = "a random run prints its seed and its verdicts")]

use std::collections::BTreeMap;

use fastrand::Rng;
use loopabull_fedmsg::{RoutingPolicy, Trust, Unlisted, Verifier, X509};
use loopabull_model::Topic;
use serde_json::{Value, json};

use crate::fixture::{Original, now, original, text_of, topic, verify_at};
use crate::random_json::value;

const NAMES: [&str; 26] = [
    "good",
    "good",
    "good",
    "good",
    "good",
    "good",
    "second",
    "second",
    "large",
    "two-names",
    "uncritical",
    "good-hint",
    "revoked",
    "high-serial",
    "expired",
    "future",
    "nameless",
    "bad-name",
    "elliptic",
    "critical",
    "forged",
    "other-hint",
    "of-double",
    "of-other",
    "md5",
    "sha224",
];
const CAS: [&str; 8] = [
    "ca.crt",
    "ca.crt",
    "ca.crt",
    "ca.crt",
    "ca-two.crt",
    "ca-other.crt",
    "ca-expired.crt",
    "ca-double.crt",
];
const CRLS: [Option<&str>; 8] = [
    Some("crl.pem"),
    Some("crl.pem"),
    Some("crl.pem"),
    None,
    None,
    Some("crl-empty.pem"),
    Some("crl-expired.pem"),
    Some("crl-of-ca.pem"),
];

/// The reasons for which this crate may refuse a message that the Python fedmsg accepts. The table in the
/// crate's documentation explains these reasons.
const STRICTER: [&str; 13] = [
    "bad-base64",
    "lone-surrogate",
    "body-not-json",
    "body-too-deep",
    "reserved-key",
    "body-shape",
    "headers-too-large",
    "bad-message-id",
    "topic-missing",
    "topic-mismatch",
    "certificate-algorithm",
    "certificate-unreadable",
    "bad-common-name",
];

/// Returns the seed of a random run and prints it.
pub(crate) fn seed(run: &str) -> u64 {
    let seed = std::env::var("LOOPABULL_SEED").map_or(2017, |seed| seed.parse().unwrap());
    println!("{run}: LOOPABULL_SEED={seed}");
    seed
}

/// A body, the way in which it is signed, and the CA, CRL and policy with which it is verified.
#[derive(Debug)]
struct Trial {
    body: String,
    name: &'static str,
    legacy: bool,
    ca: &'static str,
    crl: Option<&'static str>,
    signers: Option<Vec<&'static str>>,
    unlisted: Unlisted,
}

impl Trial {
    fn random(random: &mut Rng) -> Self {
        let mut members = vec![format!("\"topic\":\"{}\"", topic())];
        members.push(format!("\"msg\":{}", value(random, 3)));
        for (key, value) in [
            ("msg_id", "\"2026-1\"".to_owned()),
            ("i", random.u32(..).to_string()),
            ("timestamp", format!("{}", f64::from(random.u32(..)) / 8.0)),
            ("timestamp", random.u32(..).to_string()),
            ("username", "null".to_owned()),
            ("headers", "{}".to_owned()),
            ("more", value(random, 2)),
        ] {
            if random.u8(..3) > 0
                && !members.iter().any(|member| member.starts_with(&format!("\"{key}\"")))
            {
                members.push(format!("\"{key}\":{value}"));
            }
        }
        random.shuffle(&mut members);
        let signers = match random.u8(..4) {
            0 => Some(vec!["good.example.org", "second.example.org", "first.example.org"]),
            1 if random.bool() => Some(vec!["second.example.org"]),
            _ => None,
        };
        let many = |random: &mut Rng| random.u8(..5) == 0;
        Self {
            body: format!("{{{}}}", members.join(",")),
            name: if many(random) { NAMES[random.usize(..NAMES.len())] } else { "good" },
            legacy: random.u8(..10) == 0,
            ca: if many(random) { CAS[random.usize(..CAS.len())] } else { "ca.crt" },
            crl: if many(random) { CRLS[random.usize(..CRLS.len())] } else { Some("crl.pem") },
            signers,
            unlisted: if random.u8(..6) == 0 { Unlisted::Refuse } else { Unlisted::Accept },
        }
    }

    fn verifier(&self, original: &Original) -> Option<Verifier> {
        let trust: Trust = original.trust(self.ca, self.crl).ok()?;
        let lines = self.signers.as_ref().map(|signers| {
            let signers = signers.iter().map(|&signer| signer.to_owned()).collect();
            (Topic::try_from(topic()).unwrap(), signers)
        });
        let policy = RoutingPolicy::new(lines, self.unlisted);
        Some(Verifier::X509(Box::new(X509::new(trust, policy))))
    }

    fn ask(&self, original: &Original, text: &str) -> String {
        let policy = self.signers.as_ref().map_or(json!({}), |signers| json!({topic(): signers}));
        text_of(original.ask(json!({
            "do": "validate", "text": text, "ca": self.ca, "crl": self.crl, "policy": policy,
            "nitpicky": self.unlisted == Unlisted::Refuse,
        })))
    }
}

/// Changes a signed body in about half of the cases.
fn tamper(random: &mut Rng, text: &str, fields: &BTreeMap<&str, String>) -> String {
    let field = |key: &str| -> Option<(usize, usize)> {
        let start = text.find(&format!("\"{key}\":\""))? + key.len() + 4;
        Some((start, start + text[start..].find('"')?))
    };
    let replaced = |key: &str, change: &dyn Fn(&str) -> String| match field(key) {
        Some((start, end)) => {
            format!("{}{}{}", &text[..start], change(&text[start..end]), &text[end..])
        }
        None => text.to_owned(),
    };
    let prefixed = |member: &str| format!("{{{member},{}", &text[1..]);
    match random.u8(..50) {
        0 => prefixed("\"seq_id\":1"),
        1 => prefixed("\"headers\":{}"),
        2 => prefixed("\"msg\":{\"evil\":1}"),
        3 => prefixed("\"certificate\":\"\""),
        4 => prefixed("\"i\":7"),
        5 => {
            let other = fields.values().nth(random.usize(..fields.len())).unwrap();
            let other = serde_json::to_string(other).unwrap();
            replaced("certificate", &|_| other.trim_matches('"').to_owned())
        }
        6 => replaced("signature", &|old| old.replace('=', "")),
        7 => replaced("signature", &|old| old.replace("\\n", "!\\n-_")),
        8 => replaced("certificate", &|old| old.replace("\\n", "")),
        9 => replaced("crypto", &|_| {
            ["gpg", "X509", "", "x509"][usize::from(old_parity(text))].to_owned()
        }),
        10 => text.replace("\"crypto\":\"x509\",", ""),
        11 => text
            .replace("\"crypto\":\"x509\"", ["\"crypto\":null", "\"crypto\":5"][random.usize(..2)]),
        12..=17 => {
            // Replaces one character by a printable character.
            let mut bytes = text.as_bytes().to_vec();
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(b' '..=b'~');
            String::from_utf8(bytes).unwrap()
        }
        18 => text.replace(topic(), "org.example.prod.other"),
        19 => text.replace(":", " : ").replace(",\"", " ,\n\""),
        20 => replaced("certificate", &|old| old[..old.len() / 2].to_owned()),
        21 => replaced("signature", &|_| "thisisnotmysignature".to_owned()),
        _ => text.to_owned(),
    }
}

fn old_parity(text: &str) -> u8 {
    (text.len() % 4) as u8
}

/// The counts of verdicts. The test prints the counts, and checks that a run covers enough cases.
#[derive(Debug, Default)]
struct Tally {
    both_accept: u32,
    both_refuse: u32,
    ours_stricter: BTreeMap<&'static str, u32>,
    theirs: BTreeMap<String, u32>,
    ours: BTreeMap<&'static str, u32>,
}

#[test]
fn both_verifiers_accept_the_same_random_messages() {
    let count = std::env::var("LOOPABULL_MESSAGES").map_or(5_000, |count| count.parse().unwrap());
    let original = original();
    let mut random = Rng::with_seed(seed("messages"));
    let fields: BTreeMap<&str, String> =
        NAMES.iter().map(|&name| (name, original.field(name))).collect();
    let mut tally = Tally::default();
    let mut number = 0;
    while number < count {
        let trial = Trial::random(&mut random);
        let question =
            json!({"do": "sign", "text": trial.body, "name": trial.name, "legacy": trial.legacy});
        let Value::String(signed) = original.ask(question) else {
            // The random payload is not JSON, so there is no message.
            continue;
        };
        number += 1;
        let text = tamper(&mut random, &signed, &fields);
        let theirs = trial.ask(&original, &text);
        let ours = match trial.verifier(&original) {
            Some(verifier) => verify_at(&verifier, topic(), &text, now())
                .map_or_else(|rejection| rejection.reason(), |_| "accepted"),
            None => "unusable-trust",
        };
        *tally.theirs.entry(theirs.clone()).or_default() += 1;
        *tally.ours.entry(ours).or_default() += 1;
        match (theirs == "accepted", ours == "accepted") {
            (true, true) => tally.both_accept += 1,
            (false, false) => tally.both_refuse += 1,
            (true, false) if STRICTER.contains(&ours) => {
                *tally.ours_stricter.entry(ours).or_default() += 1
            }
            _ => panic!(
                "message {number}: the Python fedmsg said {theirs}, this crate {ours}\n{trial:?}\n{text}"
            ),
        }
    }
    println!("{tally:#?}");
    assert!(tally.both_accept > count / 4 && tally.both_refuse > count / 4, "{tally:#?}");
    // `LOOPABULL_MESSAGES` may set a shorter run, which may have fewer different verdicts.
    assert!(count < 5_000 || tally.ours.len() > 25, "{tally:#?}");
}
