//! A loss of power. The writes of a daemon and of its publishers are recorded. The state directory is then made as it
//! could be after a loss of power at any moment: what was written since the last sync of its file is there in part, in any
//! order. Whatever was confirmed until then is done exactly once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::test_host::{TestHost, message};

/// The number of messages.
const MESSAGES: usize = 12;
/// The moments at which the power is lost.
const LOSSES: usize = 12;
/// The part of a write that a disk completes or not, in bytes.
const SECTOR: usize = 512;

/// Starts a daemon, publishes the messages, writes the name of each confirmed one, and stops the daemon.
const SCRIPT: &str = r#"
"$@" --listen 127.0.0.1:0 --workers 2 2>>daemon.log & daemon=$!
until grep -q "\"pid\":$daemon," state/daemon.json 2>/dev/null; do sleep 0.1; done
for number in $(seq 1 12); do "$@" inject "m-$number.json" >/dev/null 2>&1 && echo "m-$number" >>confirmed; done
sleep 1
kill -TERM $daemon
wait $daemon
"#;

/// A random number generator: xorshift64* (Marsaglia and Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }
}

/// An operation of a process on a file, or the confirmation of a message.
enum Event {
    Write {
        file: PathBuf,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: PathBuf,
        length: usize,
    },
    /// All events of the file before `since` are on disk.
    Sync {
        file: PathBuf,
        since: usize,
    },
    Confirmed {
        id: String,
    },
}

/// Runs the script, and returns what was done to the files of the state directory and which messages were confirmed.
fn record(host: &TestHost) -> Vec<Event> {
    let daemon = host.command(&[]);
    let traced = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "100000", "-o", "trace"])
        .args([
            "-e",
            "trace=pwrite64,write,fsync,fdatasync,ftruncate",
            "/bin/sh",
            "-c",
            SCRIPT,
            "sh",
        ])
        .arg(daemon.get_program())
        .current_dir(host.path(""))
        .stdin(Stdio::null())
        .status();
    assert!(traced.expect("`cargo xtask test` installs strace").success());
    let mut events = Vec::new();
    let mut syncing = BTreeMap::new();
    for line in fs::read_to_string(host.path("trace")).unwrap().lines() {
        let (process, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if call.contains("sync resumed>") {
            let (file, since) = syncing.remove(process).unwrap();
            events.push(Event::Sync { file, since });
            continue;
        }
        let Some((name, rest)) = call.split_once('(') else { continue };
        let Some((file, rest)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>'))
        else {
            continue;
        };
        let file = PathBuf::from(OsString::from_vec(unescape(file)));
        let arguments: Vec<&str> =
            rest.split([',', ')', ' ']).filter(|text| !text.is_empty()).collect();
        match name {
            "pwrite64" => {
                let (bytes, at) = (unescape(arguments[0]), arguments[2].parse().unwrap());
                events.push(Event::Write { file, at, bytes });
            }
            "ftruncate" => {
                events.push(Event::Truncate { file, length: arguments[0].parse().unwrap() });
            }
            "fsync" | "fdatasync" => {
                let since = events.len();
                match call.contains("<unfinished ...>") {
                    true => drop(syncing.insert(process.to_owned(), (file, since))),
                    false => events.push(Event::Sync { file, since }),
                }
            }
            "write" if file == host.path("confirmed") => {
                let id = String::from_utf8(unescape(arguments[0])).unwrap().trim().to_owned();
                events.push(Event::Confirmed { id });
            }
            _ => (),
        }
    }
    events.retain(|event| match event {
        Event::Write { file, .. } | Event::Truncate { file, .. } => {
            file.starts_with(host.path("state"))
        }
        Event::Sync { .. } | Event::Confirmed { .. } => true,
    });
    events
}

/// Returns the bytes of a text such as `"\x6d\x31"`.
fn unescape(text: &str) -> Vec<u8> {
    let digits = text.trim_matches('"').split("\\x").skip(1);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Makes the files of a state directory as they could be if the power is lost after these events.
fn lose_power(from: &Path, to: &Path, state: &Path, events: &[Event], random: &mut Random) {
    let mut synced = BTreeMap::<&Path, usize>::new();
    for event in events {
        if let Event::Sync { file, since } = event {
            synced.insert(file, *since);
        }
    }
    let mut files = BTreeMap::<&Path, Vec<u8>>::new();
    for (index, event) in events.iter().enumerate() {
        let (Event::Write { file, .. } | Event::Truncate { file, .. }) = event else { continue };
        let is_synced = synced.get(file.as_path()).is_some_and(|since| index < *since);
        if !is_synced && random.below(2) == 0 {
            continue;
        }
        let name = file.strip_prefix(state).unwrap();
        let read = || fs::read(from.join(name)).unwrap_or_default();
        let content = files.entry(name).or_insert_with(read);
        match event {
            Event::Write { at, bytes, .. } => {
                let sectors = bytes.len().div_ceil(SECTOR);
                let torn = !is_synced && random.below(5) == 0;
                let length = if torn { random.below(sectors) * SECTOR } else { bytes.len() };
                content.resize(content.len().max(at + length), 0);
                content[*at..at + length].copy_from_slice(&bytes[..length]);
            }
            Event::Truncate { length, .. } => content.resize(*length, 0),
            Event::Sync { .. } | Event::Confirmed { .. } => (),
        }
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    for (name, content) in files {
        fs::write(to.join(name), content).unwrap();
    }
}

fn host() -> TestHost {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host
}

#[test]
fn what_was_confirmed_before_a_loss_of_power_is_done_once() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let recorded = host();
    for number in 1..=MESSAGES {
        let id = format!("m-{number}");
        recorded.write(&format!("{id}.json"), message(&id, "good", "{}"));
    }
    recorded.start(&[]).stop();
    fs::create_dir(recorded.path("before")).unwrap();
    for entry in fs::read_dir(recorded.path("state")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), recorded.path("before").join(entry.file_name())).unwrap();
        }
    }
    let events = record(&recorded);
    let count = |is_such: fn(&Event) -> bool| events.iter().filter(|event| is_such(event)).count();
    assert_eq!(count(|event| matches!(event, Event::Confirmed { .. })), MESSAGES);
    assert!(count(|event| matches!(event, Event::Sync { .. })) > MESSAGES);
    assert!(count(|event| matches!(event, Event::Write { .. })) > 5 * MESSAGES);
    let mut all = 0;
    for _ in 0..LOSSES {
        let events = &events[..random.below(events.len() + 1)];
        let confirmed: Vec<&String> = events
            .iter()
            .filter_map(|event| match event {
                Event::Confirmed { id } => Some(id),
                _ => None,
            })
            .collect();
        let host = host();
        let (from, state) = (recorded.path("before"), recorded.path("state"));
        lose_power(&from, &host.path("state"), &state, events, &mut random);
        let daemon = host.start(&["--workers", "2"]);
        daemon.wait_until_idle();
        assert_eq!(daemon.depth("dead"), Some(0));
        daemon.stop();
        let mut done = BTreeMap::<String, u32>::new();
        for run in host.runs() {
            assert!(run.outcome.is_success(), "{run:?}");
            *done.entry(run.message_id.to_string()).or_default() += 1;
        }
        let after = events.len();
        for id in &confirmed {
            assert!(done.contains_key(*id), "{id} was lost after {after} events: {done:?}");
        }
        assert!(done.values().all(|&count| count == 1), "after {after} events: {done:?}");
        all += confirmed.len();
    }
    println!("{all} confirmed messages before {LOSSES} losses of power");
}
