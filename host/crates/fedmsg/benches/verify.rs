//! Benchmark: the cost of verifying one message, compared with its RSA operation and with the Python fedmsg.
//!
//! `cargo bench -p loopabull-fedmsg` needs a Python with fedmsg, which `cargo xtask test` installs. One run
//! measures four things: our verification from the received frames to the message; its steps, one by one; a
//! bare RSA operation with our cryptography library on the same bytes; and `fedmsg.crypto.validate` of the
//! Python fedmsg. `validate` gets parsed JSON, so its time does not include the parsing.
#![expect(clippy::unwrap_used, reason = "in a bench a panic is the report")]
#![expect(clippy::print_stdout, reason = "criterion cannot compare these, so they are printed")]

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
};
use criterion::Criterion;
use loopabull_fedmsg::{Credentials, Envelope, Verifier, canonical_json};
use loopabull_model::Body;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

#[path = "../tests/original/fixture.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod fixture;

use fixture::{Original, now, topic};

/// The number of turns. Each turn measures all cases one after the other. Turns are short, so that other load
/// on the machine affects all cases alike.
const TURNS: u32 = 200;
/// The number of repetitions of each case in a turn.
const ROUNDS: u32 = 500;
/// The number of repetitions of the Python fedmsg in a turn. One repetition takes about half a millisecond.
const ORIGINAL_ROUNDS: u32 = 10;

fn main() {
    let original = Original::start();
    let text = original.sign(&body().to_string(), "good");
    let verifier = original.verifier("ca.crt", Some("crl.pem"));
    let frames = [topic().as_bytes(), text.as_bytes()];
    let now = now();
    let key = key(&original);
    let parsed = ParsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, &key).unwrap();
    let unparsed = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let content = canonical_json(&text, Credentials::LeftOut).unwrap();
    let signature = signature(&text);
    println!("a body of {} bytes, of which {} are signed", text.len(), content.len());

    let message = || {
        let envelope = Envelope::parse(black_box(&frames), 2).unwrap();
        verifier.verify(envelope, now).unwrap()
    };
    let bare = || unparsed.verify(black_box(content.as_bytes()), &signature).unwrap();
    let kept = || parsed.verify_sig(black_box(content.as_bytes()), &signature).unwrap();

    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("message", |bench| bench.iter(message));
    criterion.bench_function("rsa", |bench| bench.iter(bare));
    criterion.bench_function("rsa/kept-key", |bench| bench.iter(kept));
    criterion.bench_function("parse", |bench| {
        bench.iter(|| Envelope::parse(black_box(&frames), 2).unwrap());
    });
    criterion.bench_function("canonical", |bench| {
        bench.iter(|| canonical_json(black_box(&text), Credentials::LeftOut).unwrap());
    });
    let msg = serde_json::from_str::<Value>(&content).unwrap()["msg"].to_string();
    criterion.bench_function("body", |bench| bench.iter(|| Body::parse(black_box(&msg)).unwrap()));
    criterion.bench_function("off", |bench| {
        bench.iter(|| {
            let envelope = Envelope::parse(black_box(&frames), 2).unwrap();
            Verifier::Off.verify(envelope, now).unwrap()
        });
    });
    criterion.final_summary();

    let (mut ours, mut rsa, mut rsa_kept, mut theirs) = (vec![], vec![], vec![], vec![]);
    for _ in 0..TURNS {
        ours.push(each(|| drop(message())));
        rsa.push(each(bare));
        rsa_kept.push(each(kept));
        let question = json!({"do": "seconds", "text": text, "count": ORIGINAL_ROUNDS});
        theirs.push(Duration::from_secs_f64(original.ask(question).as_f64().unwrap()));
    }
    let [ours, rsa, rsa_kept, theirs] = [ours, rsa, rsa_kept, theirs].map(median);
    println!(
        "message {ours:?}, RSA {rsa:?}, RSA with a kept key {rsa_kept:?}, original {theirs:?}"
    );
    println!(
        "message / RSA {:.2}, message / RSA with a kept key {:.2}, original / message {:.1}",
        ours.as_secs_f64() / rsa.as_secs_f64(),
        ours.as_secs_f64() / rsa_kept.as_secs_f64(),
        theirs.as_secs_f64() / ours.as_secs_f64(),
    );
}

fn each(mut run: impl FnMut()) -> Duration {
    let start = processor_time();
    for _ in 0..ROUNDS {
        run();
    }
    (processor_time() - start) / ROUNDS
}

/// Returns the processor time of this thread, which does not depend on other load. The Python fedmsg reports
/// its processor time too.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Returns a body of two kilobytes in the form of a message about a build. The body is not signed yet.
fn body() -> Value {
    let tasks: Vec<_> = (0..12)
        .map(|n| json!({"id": 21_600_000 + n, "method": "buildArch", "arch": "x86_64", "state": "CLOSED", "weight": 1.5}))
        .collect();
    json!({
        "topic": topic(),
        "msg_id": "2017-0b3f5b3e-6c0c-4b6e-8d1e-5c2a4b0b9f6a",
        "i": 33_482,
        "timestamp": 1_504_642_719,
        "username": "apache",
        "msg": {
            "build_id": 968_213, "old": 0, "name": "python-requests", "task_id": 21_686_531,
            "attribute": "state", "request": ["git://example.org/rpms/python-requests", "f27", {}],
            "instance": "primary", "version": "2.18.4", "owner": "a \"person\"", "new": 1,
            "release": "1.fc27", "tasks": tasks, "epoch": null,
            "summary": "HTTP library for humans ünd others".repeat(6),
        },
    })
}

fn key(original: &Original) -> Vec<u8> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(&original.read("good.crt")).unwrap();
    let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
    certificate.public_key().subject_public_key.data.to_vec()
}

/// Decodes the field `signature` of a signed body.
fn signature(text: &str) -> Vec<u8> {
    let body: Value = serde_json::from_str(text).unwrap();
    let field = body["signature"].as_str().unwrap().replace('\n', "");
    let value = |byte: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            .iter()
            .position(|&other| other == byte)
            .unwrap_or_default() as u32
    };
    let bytes = field.as_bytes().chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0, |bits, &byte| bits << 6 | value(byte));
        bits.to_be_bytes()[1..].to_vec()
    });
    bytes.take(128).collect()
}
