//! No part of a secret is in what the host keeps or shows, wherever a text with the secret is cut.
//!
//! Components write random texts to their log, their output, their notes and their failures, and a playbook to its
//! output and its failure. The texts contain secrets and pieces of them, in the forms in which programs write them. The
//! tests look for every piece of eight bytes, in each form, in the state directory, the log, and the output of the commands.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::test_host::{TestHost, repository, text};

/// The length of the pieces that must not be found, in bytes.
const PIECE: usize = 8;
/// The length of a text in base64 that contains as many bytes.
const BASE64_PIECE: usize = 12;
/// The number of different letters and digits that a piece needs. Ordinary text contains pieces with fewer.
const TELLING: usize = 4;
/// The number of secrets.
const SECRETS: usize = 10;
/// The number of texts in a message.
const TEXTS: usize = 50;
/// The sizes to which the output of a run is cut.
const OUTPUTS: [&str; 3] = ["700B", "3000B", "16KiB"];

type Pieces = BTreeMap<usize, HashSet<Vec<u8>>>;

/// A random number generator: xorshift64* (Marsaglia and Vigna).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % limit
    }

    fn text(&mut self, alphabet: &str, length: usize) -> String {
        let characters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| characters[self.below(characters.len())]).collect()
    }

    fn secret(&mut self) -> String {
        let length = 12 + self.below(60);
        self.text("abcdefghijkABCDEFGHIJK0123456789+/=_\"'\\%&$-", length)
    }

    /// Returns a text that contains a secret or a piece of it, in one of its forms, between other text.
    fn leak(&mut self, secrets: &[String]) -> String {
        let secret = &secrets[self.below(secrets.len())];
        let forms = forms(secret);
        let form = &forms[self.below(forms.len() + 2).min(forms.len() - 1)];
        let (from, to) = match self.below(3) {
            0 => (self.below(form.len()), form.len()),
            1 => (0, self.below(form.len())),
            _ => (0, form.len()),
        };
        let (before, after) = (self.below(300), self.below(60));
        format!(
            "{}{}{}",
            self.text(" .\n\u{e9}", before),
            &form[from..to],
            self.text(" ,\n", after)
        )
    }
}

/// Returns a secret as programs write it: in JSON, as a literal, in a URL, in base64, and as it is.
fn forms(secret: &str) -> [String; 5] {
    let in_quotes = |text: String| text[1..text.len() - 1].to_owned();
    let url = secret.bytes().fold(String::new(), |mut all, byte| {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => all.push(byte.into()),
            _ => write!(all, "%{byte:02X}").unwrap(),
        }
        all
    });
    let (json, literal) = (json!(secret).to_string(), format!("{secret:?}"));
    [in_quotes(json), in_quotes(literal), url, base64(secret), secret.to_owned()]
}

/// Encodes whole groups of three bytes (RFC 4648, section 4).
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks_exact(3);
    let groups =
        groups.map(|group| group.iter().fold(0_usize, |all, &byte| all << 8 | usize::from(byte)));
    groups
        .flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63])))
        .collect()
}

/// The texts that must not be found: each piece of a secret, in each form. By their length in bytes.
fn pieces(secrets: &[String]) -> Pieces {
    let mut pieces = Pieces::new();
    let mut add = |text: &[u8]| {
        pieces.entry(text.len()).or_default().insert(text.to_vec());
    };
    for secret in secrets {
        // The secrets are ASCII, so that each byte is a character.
        for piece in secret.as_bytes().windows(PIECE).filter(|piece| is_telling(piece)) {
            let [json, literal, url, _, plain] = forms(str::from_utf8(piece).unwrap());
            [json, literal, url, plain].iter().for_each(|form| add(form.as_bytes()));
        }
        base64(secret).as_bytes().windows(BASE64_PIECE).for_each(&mut add);
    }
    pieces
}

fn is_telling(piece: &[u8]) -> bool {
    let letters = piece.iter().filter(|byte| byte.is_ascii_alphanumeric());
    letters.collect::<HashSet<_>>().len() >= TELLING
}

/// Fails if the bytes contain a piece.
fn check_bytes(name: &str, bytes: &[u8], pieces: &Pieces) {
    for (length, pieces) in pieces {
        let found = bytes.windows(*length).position(|window| pieces.contains(window));
        if let Some(at) = found {
            let context = &bytes[at.saturating_sub(80)..(at + 80).min(bytes.len())];
            panic!(
                "a piece of a secret is in {name} at {at}: {:?}",
                String::from_utf8_lossy(context)
            );
        }
    }
}

/// Fails if a text in a JSON value contains a piece. In JSON itself, quotes and backslashes are escaped.
fn check_value(name: &str, value: &Value, pieces: &Pieces) {
    match value {
        Value::String(text) => check_bytes(name, text.as_bytes(), pieces),
        Value::Array(items) => items.iter().for_each(|item| check_value(name, item, pieces)),
        Value::Object(map) => map.values().for_each(|item| check_value(name, item, pieces)),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

fn check_files(dir: &Path, pieces: &Pieces) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => check_files(&entry.path(), pieces),
            false => {
                let bytes = fs::read(entry.path()).unwrap();
                check_bytes(&entry.path().display().to_string(), &bytes, pieces);
            }
        }
    }
}

/// Runs this number of messages, each with [`TEXTS`] texts.
fn check(messages: usize, seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let secrets: Vec<String> = (0..SECRETS).map(|_| random.secret()).collect();
    let host = TestHost::new();
    let component = fs::read(repository().join("tests/fixtures/probe.wasm")).unwrap();
    let mut grants = String::new();
    fs::create_dir(host.path("secrets")).unwrap();
    for (number, secret) in secrets.iter().enumerate() {
        let file = host.path("secrets").join(number.to_string());
        fs::write(&file, secret).unwrap();
        writeln!(grants, "s{number} = {{ file = '{}' }}", file.display()).unwrap();
    }
    for (number, output) in OUTPUTS.iter().enumerate() {
        host.write(&format!("tasks/t{number}.wasm"), &component);
        host.write(
            &format!("tasks/t{number}.toml"),
            format!(
                "[limits]\noutput = '{output}'\n[retry]\nmax_attempts = 1\n[breaker]\nfailures = 0\n\
                 [grants]\nhttp = ['http://127.0.0.1:1']\n[grants.secrets]\n{grants}"
            ),
        );
    }
    let tasks = "    - debug: { msg: '{{ item | reverse }}' }\n      loop: '{{ msg }}'\n    \
                      - fail: { msg: '{{ msg[0] | reverse }}' }\n";
    let manifest = format!("[retry]\nmax_attempts = 1\n[grants.secrets]\n{grants}");
    host.add_playbook("plays", &manifest, tasks);
    let texts: Vec<String> =
        (0..TEXTS).map(|_| random.leak(&secrets).chars().rev().collect()).collect();
    let play = json!({"topic": "plays", "msg_id": "m-play", "timestamp": 1, "i": 1, "msg": texts});
    let mut all = vec![play.to_string()];
    for id in 0..messages {
        let channels = ["log", "log", "out", "err", "note"];
        let say = |random: &mut Random, channel: &str| {
            format!("say {channel} {}", hex(&random.leak(&secrets)))
        };
        let mut body: Vec<String> = (1..TEXTS)
            .map(|_| {
                let channel = channels[random.below(channels.len())];
                say(&mut random, channel)
            })
            .collect();
        let end = ["reject", "panic", "log"][random.below(3)];
        body.push(say(&mut random, end));
        let topic = format!("t{}", random.below(OUTPUTS.len()));
        all.push(
            json!({"topic": topic, "msg_id": format!("m-{id}"), "timestamp": 1, "i": 1, "msg": body})
                .to_string(),
        );
    }
    let daemon = host.start(&[]);
    host.inject(&all);
    daemon.wait_until_idle_for(std::time::Duration::from_secs(900));
    let pieces = pieces(&secrets);
    let count: usize = pieces.values().map(HashSet::len).sum();
    assert!(count > 500, "the secrets have only {count} pieces");
    check_value("/api/v1/status", &daemon.status(), &pieces);
    check_bytes("/metrics", daemon.get("/metrics").1.as_bytes(), &pieces);
    daemon.stop();
    let mut marks = 0;
    let lists: [&[&str]; 2] =
        [&["runs", "list", "--json", "--limit", "1000000"], &["dead-letters", "list", "--json"]];
    for arguments in lists {
        let output = host.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        for line in text(&output.stdout).lines() {
            marks += line.matches("[secret]").count();
            check_value(&arguments.join(" "), &serde_json::from_str(line).unwrap(), &pieces);
        }
    }
    // Most texts are kept, and most contain a secret.
    assert!(marks > messages * 3, "only {marks} secrets were replaced");
    check_files(&host.path("state"), &pieces);
    check_bytes("the log", host.log().as_bytes(), &pieces);
    assert!(host.log().contains("[secret]"), "the log got no text of a task");
    let runs = host.runs();
    let play = runs.iter().find(|run| run.playbook.is_some()).unwrap();
    assert!(play.output.text.matches("[secret]").count() > TEXTS / 4, "{}", play.output.text);
    assert_eq!(runs.len(), messages + 1);
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        write!(all, "{byte:02x}").unwrap();
        all
    })
}

#[test]
fn no_piece_of_a_secret_is_kept_or_shown() {
    check(60, 0x5eed);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_no_piece_of_a_secret_is_kept_or_shown_in_100_000_texts() {
    check(100_000 / TEXTS, std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
}
