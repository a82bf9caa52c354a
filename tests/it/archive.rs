//! A simulated datagrepper, which is the archive of messages. Its HTTP server answers `/v2/search` as
//! datagrepper's documentation says. The parameters of a request are `start`, `end`, `order`, `rows_per_page`
//! (up to 100), `page` and `topic`. A response is JSON with `raw_messages`, `pages` and `total`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The parameters of a request: each name with its values.
type Query = BTreeMap<String, Vec<String>>;

/// A fault in an answer of the archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The status is 503.
    Unavailable,
    /// The body ends in the middle.
    Truncated,
    /// The body is not JSON.
    Garbage,
    /// The answer is correct. Afterwards 30 messages with an earlier time are added to the archive.
    Inserts,
}

#[derive(Default)]
struct State {
    /// The time in seconds since 1970, the id and the topic of each message.
    messages: Vec<(i64, String, String)>,
    /// The faults of the next answers. The last element belongs to the next answer.
    faults: Vec<Fault>,
    /// The id of a message. Each answer that contains this message is not JSON.
    unreadable: Option<String>,
    /// The requests so far.
    queries: Vec<Query>,
}

pub(crate) struct Archive {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Archive {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                drop(answer(stream.unwrap(), &shared));
            }
        });
        Self { address, state }
    }

    /// Returns the part of a configuration that makes a daemon use this archive.
    pub(crate) fn settings(&self) -> String {
        format!("[datagrepper]\nurl = 'http://{}/datagrepper'\n", self.address)
    }

    /// Adds a message with its time in seconds since 1970.
    pub(crate) fn add(&self, time: i64, id: &str, topic: &str) {
        self.state.lock().unwrap().messages.push((time, id.to_owned(), topic.to_owned()));
    }

    /// Sets the faults of the next answers.
    pub(crate) fn faults(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults = faults.iter().rev().copied().collect();
    }

    /// Makes each answer that contains this message unreadable.
    pub(crate) fn make_unreadable(&self, id: &str) {
        self.state.lock().unwrap().unreadable = Some(id.to_owned());
    }

    pub(crate) fn queries(&self) -> Vec<Query> {
        self.state.lock().unwrap().queries.clone()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap();
    assert_eq!(path, "/datagrepper/v2/search");
    let mut asked = Query::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap();
        asked.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    let (fault, body) = {
        let mut state = state.lock().unwrap();
        let body = page(&state, &asked).to_string();
        let is_unreadable = state.unreadable.as_ref().is_some_and(|id| body.contains(id));
        let fault = state.faults.pop().or(is_unreadable.then_some(Fault::Garbage));
        if fault == Some(Fault::Inserts) {
            let start: i64 = asked["start"][0].parse().unwrap();
            let topic = asked["topic"][0].clone();
            for number in 0..30 {
                state.messages.push((start, format!("late-{number:03}"), topic.clone()));
            }
        }
        state.queries.push(asked);
        (fault, body)
    };
    let mut say = |status: &str, length: usize, body: &str| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    match fault {
        Some(Fault::Unavailable) => say("503 Service Unavailable", 0, ""),
        Some(Fault::Truncated) => say("200 OK", body.len(), &body[..body.len() / 2]),
        Some(Fault::Garbage) => say("200 OK", 6, "<html>"),
        Some(Fault::Inserts) | None => say("200 OK", body.len(), &body),
    }
}

/// Returns a page of search results in datagrepper's form.
fn page(state: &State, asked: &Query) -> Value {
    let number = |name: &str| asked[name][0].parse::<i64>().unwrap();
    assert_eq!(asked["order"], ["asc"]);
    let (start, end, page) = (number("start"), number("end"), number("page"));
    let rows = number("rows_per_page").min(100);
    let wanted = |topic: &String| asked.get("topic").is_none_or(|topics| topics.contains(topic));
    let mut found: Vec<_> = state
        .messages
        .iter()
        .filter(|(time, _, topic)| (start..=end).contains(time) && wanted(topic))
        .collect();
    found.sort();
    let (total, pages) = (found.len() as i64, (found.len() as i64 + rows - 1) / rows);
    let shown = found.iter().skip(((page - 1) * rows) as usize).take(rows as usize);
    let messages = shown.map(|(_, id, topic)| {
        let headers = json!({"fedora_messaging_severity": 20, "fedora_messaging_schema": "base.message"});
        json!({"body": {"n": 1}, "headers": headers, "id": id, "priority": 0, "queue": null, "topic": topic})
    });
    json!({"raw_messages": messages.collect::<Vec<_>>(), "total": total, "pages": pages, "count": rows, "arguments": {}})
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}
