//! A real browser: headless Chromium, driven through chromedriver (<https://www.w3.org/TR/webdriver2/>).
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::port;

/// The time limit for the start of the driver and for each command, on two busy cores.
const LIMIT: Duration = Duration::from_secs(120);
/// The interval between two looks at a page.
const TICK: Duration = Duration::from_millis(50);

/// A browser with one window. It ends on drop.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    /// The address of the session.
    session: String,
    _profile: TempDir,
}

/// The colours that a person prefers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colours {
    Light,
    Dark,
}

/// A line of the browser's console, or a request that it blocked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsoleLine {
    pub level: String,
    pub text: String,
}

impl Browser {
    /// Starts a browser with a window of this size in pixels.
    ///
    /// # Panics
    ///
    /// If Chromium or chromedriver is not installed or does not start. The message says what to do.
    pub fn start(width: u32, height: u32, colours: Colours) -> Self {
        let (profile, port) = (tempfile::tempdir().expect("a folder can be created"), port::free());
        // The driver ends with this process, even if this process is killed.
        let driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "chromedriver"])
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: `cargo xtask test` installs it");
        let mut browser =
            Self { driver, session: format!("http://127.0.0.1:{port}"), _profile: profile };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < LIMIT, "chromedriver does not start");
            std::thread::sleep(TICK);
        }
        let arguments = [
            "--headless=new".to_owned(),
            // The tests run as root, for which Chromium has no sandbox.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            // Otherwise Chromium asks its maker's servers for updates and components.
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "timeouts": {"script": LIMIT.as_millis() as u64},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": arguments},
        }}});
        let session = browser.post("/session", &wanted);
        let id = session["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("{}/session/{id}", browser.session);
        // A headless window is wider than asked for, and never as narrow as a phone's.
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", &size);
        let scheme = match colours {
            Colours::Light => "light",
            Colours::Dark => "dark",
        };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", &media);
        browser
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Returns the address of the current page.
    pub fn url(&self) -> String {
        self.get("/url").as_str().expect("an address is text").to_owned()
    }

    /// Runs the body of a function in the page, and returns its result.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs the body of an async function in the page, and returns its result.
    pub fn run_async(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {script} }})().then(done, (error) => done({{ failed: String(error) }}));"
        );
        self.post("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Returns the text of the page as a person sees it.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Presses keys, one after the other.
    pub fn press(&self, keys: &str) {
        let presses = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        });
        let actions: Vec<_> = presses.collect();
        self.post(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]}),
        );
    }

    /// Answers the open dialog: types a text into it, if one is given, and accepts it. Returns what it says.
    pub fn accept_dialog(&self, text: Option<&str>) -> String {
        let start = Instant::now();
        let said = loop {
            // There is no dialog yet as long as the driver answers with an error.
            let answer = agent().get(format!("{}/alert/text", self.session)).call();
            let answer = answer.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
            let answer: Value =
                answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            if let Some(said) = answer["value"].as_str() {
                break said.to_owned();
            }
            assert!(start.elapsed() < LIMIT, "there is no dialog");
            std::thread::sleep(TICK);
        };
        if let Some(text) = text {
            self.post("/alert/text", &json!({ "text": text }));
        }
        self.post("/alert/accept", &json!({}));
        said
    }

    /// Waits until a script returns `true`.
    ///
    /// # Panics
    ///
    /// If that takes two minutes.
    pub fn wait_until(&self, what: &str, script: &str) {
        let start = Instant::now();
        while self.run(script) != Value::Bool(true) {
            assert!(start.elapsed() < LIMIT, "waited for {what} in: {}", self.text());
            std::thread::sleep(TICK);
        }
    }

    /// Returns the lines of the console since the last call.
    pub fn console(&self) -> Vec<ConsoleLine> {
        let lines = self.post("/se/log", &json!({"type": "browser"}));
        let line = |line: &Value| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            ConsoleLine { level: text("level"), text: text("message") }
        };
        lines.as_array().expect("a log is a list").iter().map(line).collect()
    }

    /// Returns the addresses that the pages have requested since the last call.
    pub fn requests(&self) -> Vec<String> {
        let lines = self.post("/se/log", &json!({"type": "performance"}));
        let request = |line: &Value| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &event["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            Some(event["params"]["request"]["url"].as_str().filter(|_| is_request)?.to_owned())
        };
        lines.as_array().expect("a log is a list").iter().filter_map(request).collect()
    }

    /// Saves a picture of the window as a PNG file.
    pub fn save_picture(&self, path: &Path) {
        let picture = self.get("/screenshot");
        let mut decode = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(path).expect("the picture can be written"))
            .spawn()
            .expect("base64 is installed");
        let mut input = decode.stdin.take().expect("standard input is piped");
        let text = picture.as_str().expect("a picture is text");
        std::io::Write::write_all(&mut input, text.as_bytes()).expect("base64 reads its input");
        drop(input);
        assert!(decode.wait().expect("base64 ends").success());
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    fn get(&self, path: &str) -> Value {
        let answer = agent().get(format!("{}{path}", self.session)).call();
        value(path, answer)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = agent().post(format!("{}{path}", self.session));
        let request = request.header("Content-Type", "application/json");
        value(path, request.send(body.to_string()))
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(LIMIT)).build().into()
}

fn value(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut answer = answer.unwrap_or_else(|error| panic!("chromedriver, {path}: {error}"));
    let text = answer.body_mut().with_config().limit(64 << 20).read_to_string();
    let text = text.unwrap_or_else(|error| panic!("chromedriver, {path}: {error}"));
    let mut answer: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(answer["value"]["error"].is_null(), "chromedriver, {path}: {text}");
    answer["value"].take()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium. The driver may be gone already.
        drop(agent().delete(&self.session).call());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
