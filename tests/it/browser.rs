//! The pages in a real browser: light and dark, on a desk and on a phone, with hostile messages, and by the keyboard alone.

use std::path::{Path, PathBuf};

use loopabull_testbed::{Browser, Colours, python};
use serde_json::json;

use crate::test_host::{Daemon, TestHost, message, repository, wait_for};

/// The paths of the pages.
const PATHS: [&str; 9] = [
    "/",
    "/runs",
    "/runs?q=outcome:failure",
    "/runs?q=nonsense:",
    "/messages",
    "/messages?about=m-hostile",
    "/failures",
    "/tasks",
    "/audit",
];
/// The key Escape: <https://www.w3.org/TR/webdriver2/#keyboard-actions>.
const ESCAPE: &str = "\u{e00c}";
const ENTER: &str = "\u{e007}";
/// The largest body that a message can have here, in bytes.
const LARGE: usize = 20 << 10;

/// Finds parts of a page that some people cannot read or use, as axe-core sees it: <https://github.com/dequelabs/axe-core>.
const AXE: &str = "
    const found = await axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] });
    const serious = found.violations.filter((one) => ['serious', 'critical'].includes(one.impact));
    return serious.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html).join(' ')}`);";

/// A body that is markup, script, text from right to left, and long.
fn hostile() -> String {
    let text = format!(
        "</pre></script><script>document.title='owned'</script><img src=//evil.example/x onerror=\"document.title='owned'\">\u{202e}{}",
        "x".repeat(LARGE)
    );
    json!({"text": text, "<b>key</b>": {"{{ 7 * 7 }}": "javascript:alert(1)"}}).to_string()
}

/// A daemon with a task that succeeds, one that fails, and one that is paused.
fn site() -> (TestHost, Daemon) {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest("bad", "bad", "[retry]\nmax_attempts = 1", "unreachable");
    host.add_guest("later", "later", "", "i32.const 0");
    assert!(host.run(&["pause", "--task", "later", "--reason", "<i>tonight</i>"]).status.success());
    let daemon = host.start(&["--workers", "1"]);
    let mut messages = vec![message("m-hostile", "good", &hostile())];
    for number in 0..3 {
        messages.push(message(&format!("m-{number}"), "good", "{}"));
        messages.push(message(&format!("f-{number}"), "bad", "{}"));
    }
    messages.push(message("m-later", "later", "{}"));
    host.inject(&messages);
    wait_for("the runs", || (host.runs().len() == 7).then_some(()));
    daemon.wait_until_idle();
    (host, daemon)
}

/// Opens a page and checks that nothing of it fails, comes from elsewhere, or does what a message says.
fn open(browser: &Browser, daemon: &Daemon, path: &str) {
    browser.requests();
    browser.console();
    browser.open(&format!("http://{}{path}", daemon.address()));
    let title = browser.run("return document.title");
    assert!(title.as_str().unwrap().ends_with("loopabull-host"), "{path}: {title}");
    for request in browser.requests() {
        let own = format!("http://{}/", daemon.address());
        assert!(request.starts_with(&own), "{path} requests {request}");
    }
    // The address of a search that cannot be read answers with an error, which the console reports.
    let lines = browser.console().into_iter();
    let lines: Vec<_> = lines.filter(|line| !line.text.contains("status of 400")).collect();
    assert_eq!(lines, [], "{path}");
    // Only tables and output may be wider than the window: they scroll by themselves.
    let width = browser.run("return document.documentElement.scrollWidth <= window.innerWidth");
    assert_eq!(width, true, "{path} is wider than the window");
}

/// Returns the directory in which pictures of the pages are kept for people to look at.
fn pictures() -> PathBuf {
    let folder = repository().join("target/pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn picture_name(path: &str) -> String {
    let name: String = path.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    if name.is_empty() { "overview".to_owned() } else { name }
}

fn axe() -> String {
    let file = std::env::var_os("LOOPABULL_TEST_AXE").map_or_else(
        || Path::new(repository()).join("target/axe/node_modules/axe-core/axe.min.js"),
        PathBuf::from,
    );
    std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("axe-core: {}: {error}; run `cargo xtask test`", file.display())
    })
}

#[test]
fn every_page_works_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let (host, daemon) = site();
    let axe = axe();
    let run = host.runs().into_iter().find(|run| run.message_id.as_str() == "m-hostile").unwrap();
    let detail = format!("/runs/{}", run.id);
    let compared = format!("{detail}/compare");
    let paths: Vec<&str> = PATHS.into_iter().chain([detail.as_str(), &compared]).collect();
    for (name, width, height, colours) in [
        ("desk-light", 1280, 900, Colours::Light),
        ("desk-dark", 1280, 900, Colours::Dark),
        ("phone-light", 390, 844, Colours::Light),
        ("phone-dark", 390, 844, Colours::Dark),
    ] {
        let browser = Browser::start(width, height, colours);
        for path in &paths {
            open(&browser, &daemon, path);
            let page = match *path {
                path if path == detail => "run".to_owned(),
                path if path == compared => "compare".to_owned(),
                path => picture_name(path),
            };
            browser.save_picture(&pictures().join(format!("{name}-{page}.png")));
            browser.run(&axe);
            let found = browser.run_async(AXE);
            assert_eq!(found, json!([]), "{name} {path}");
        }
    }
    daemon.stop();
}

#[test]
fn a_hostile_message_is_shown_as_text() {
    let (host, daemon) = site();
    let browser = Browser::start(1280, 900, Colours::Light);
    let run = host.runs().into_iter().find(|run| run.message_id.as_str() == "m-hostile").unwrap();
    open(&browser, &daemon, &format!("/runs/{}", run.id));
    let text = browser.text();
    assert!(text.contains("<script>document.title='owned'</script>"), "{}", &text[..2000]);
    assert!(text.contains("{{ 7 * 7 }}") && text.contains("javascript:alert(1)"));
    assert_eq!(browser.run("return document.querySelectorAll('main img, main script').length"), 0);
    // Nothing from right to left changes the order of the rest of the page.
    let isolated = "return getComputedStyle(document.querySelector('main pre')).unicodeBidi";
    assert_eq!(browser.run(isolated), "plaintext");
    open(&browser, &daemon, "/");
    assert!(browser.text().contains("<i>tonight</i>"), "{}", browser.text());
    daemon.stop();
}

#[test]
fn a_page_follows_what_happens() {
    let (host, daemon) = site();
    let browser = Browser::start(1280, 900, Colours::Light);
    open(&browser, &daemon, "/runs");
    assert!(!browser.text().contains("m-new"));
    host.inject(&[message("m-new", "good", "{}")]);
    browser.wait_until("the new run", "return document.body.innerText.includes('m-new')");
    daemon.stop();
    browser.wait_until(
        "the page to say that the daemon is away",
        "return document.body.innerText.includes('no connection to the daemon')",
    );
}

#[test]
fn the_keyboard_alone_suffices() {
    let (_host, daemon) = site();
    let browser = Browser::start(1280, 900, Colours::Light);
    open(&browser, &daemon, "/");
    browser.press("gr");
    browser.wait_until("the runs", "return location.pathname === '/runs'");
    browser.press("/");
    browser.wait_until("the search", "return document.activeElement.type === 'search'");
    browser.press("outcome:failure");
    browser.press(ENTER);
    browser.wait_until(
        "the search's result",
        "return document.querySelectorAll('tr[data-key]').length === 3",
    );
    assert!(browser.url().ends_with("/runs?q=outcome%3Afailure"), "{}", browser.url());
    browser.press("jj");
    let selected = "return [...document.querySelectorAll('tr[data-key]')].findIndex((row) => row.matches('.selected'))";
    assert_eq!(browser.run(selected), 1);
    browser.press("k");
    assert_eq!(browser.run(selected), 0);
    browser.press("o");
    browser.wait_until("a run", "return document.title.startsWith('Run of bad')");
    browser.press("?");
    browser.wait_until("the help", "return document.getElementById('help').open");
    browser.press(ESCAPE);
    browser.wait_until("the end of the help", "return !document.getElementById('help').open");
    browser.press("gf");
    browser.wait_until("the failures", "return location.pathname === '/failures'");
    browser.press("gt");
    browser.wait_until("the tasks", "return location.pathname === '/tasks'");
    // A search from a page without one goes to the runs.
    browser.press("/");
    browser.wait_until("the search", "return document.activeElement.type === 'search'");
    // Every link and button can be reached by Tab.
    let unreachable = "return [...document.querySelectorAll('a, button, input, summary')].filter((one) => one.tabIndex < 0).length";
    assert_eq!(browser.run(unreachable), 0);
    daemon.stop();
}

/// Adds runs to a journal: copies of one of its runs, in tasks of their own.
const FILL: &str = "
import sqlite3, sys
journal = sqlite3.connect(sys.argv[1])
columns = [row[1] for row in journal.execute('PRAGMA table_info(runs)')]
run = dict(zip(columns, journal.execute(\"SELECT * FROM runs WHERE message_id = 'm-0'\").fetchone()))
start = run['started_at_ms']
rows = []
for number in range(int(sys.argv[2])):
    run.update(id=f'{number:032x}', entry=f'old-{number}', message_id=f'old-{number}', task=f'task-{number % 50}')
    run.update(started_at_ms=start - 1000 * (int(sys.argv[2]) - number))
    rows.append(list(run.values()))
journal.executemany(f'INSERT INTO runs VALUES ({\",\".join(\"?\" * len(columns))})', rows)
journal.commit()
";

/// A search finds what is far back among many runs, and one that finds nothing ends too.
#[test]
fn pages_of_a_hundred_thousand_runs_are_turned() {
    let (host, daemon) = site();
    daemon.stop();
    let mut fill = std::process::Command::new(python());
    fill.args(["-c", FILL]).arg(host.path("state/journal.db")).arg("100000");
    assert!(fill.status().unwrap().success());
    let daemon = host.start(&["--workers", "1"]);
    let browser = Browser::start(1280, 900, Colours::Light);
    let rows = "return document.querySelectorAll('tr[data-key]').length";
    let more = |text: &str| {
        let script = format!(
            "return [...document.links].find((link) => link.textContent === {text:?})?.href ?? null"
        );
        browser.run(&script).as_str().map(str::to_owned)
    };
    // A busy machine may find fewer runs in the time of a page, whose first part is refreshed. So the search begins with
    // a later part, which is not.
    let find = |path: &str, count: u64| {
        open(&browser, &daemon, &format!("{path}&before=9999999999999-0"));
        let mut found = browser.run(rows).as_u64().unwrap();
        while found < count {
            browser.open(&more("Search older runs").expect("there are older runs"));
            found += browser.run(rows).as_u64().unwrap();
        }
        assert!(found < 2 * count, "{path}: {found}");
    };
    find("/runs?q=", 50);
    browser.open(&more("Older runs").or_else(|| more("Search older runs")).unwrap());
    assert!(browser.run(rows).as_u64() > Some(0));
    find("/runs?q=task:task-7", 50);
    find("/runs?q=message:old-5", 1);
    // Nothing has an index for this. The search goes on until it has seen all runs.
    open(&browser, &daemon, "/runs?q=attempt:>7");
    for _ in 0..1000 {
        assert_eq!(browser.run(rows), 0);
        match more("Search older runs") {
            None => break,
            Some(link) => browser.open(&link),
        }
    }
    assert!(browser.text().contains("No run matches this search."), "{}", browser.text());
    daemon.stop();
}

/// Presses a button on the page by its name, within the row that has this text.
pub(crate) fn press_button(browser: &Browser, row: &str, name: &str) {
    press_button_in(browser, "tr", row, name);
}

/// Presses a button in an element of this kind that has a text.
pub(crate) fn press_button_in(browser: &Browser, kind: &str, row: &str, name: &str) {
    // The page may just be refreshed. The dialog that the button opens would block this script, so it is pressed later.
    let script = format!(
        "(function press() {{
            const rows = [...document.querySelectorAll({kind:?})].filter((row) => row.innerText.includes({row:?}));
            const buttons = rows.flatMap((row) => [...row.querySelectorAll('button')]);
            const button = buttons.find((button) => button.innerText === {name:?} && !button.disabled);
            if (button) button.click();
            else setTimeout(press, 50);
        }});"
    );
    let script = script.trim_end_matches(';');
    browser.run(&format!("setTimeout({script});"));
}

/// Waits until the page tells the result of an action.
pub(crate) fn wait_until_said(browser: &Browser, text: &str) {
    let script =
        format!("return document.getElementById('connection').innerText.includes({text:?})");
    browser.wait_until(text, &script);
}

#[test]
fn an_operator_acts_on_the_pages() {
    let host = TestHost::new();
    host.add_guest("good", "good", "", "i32.const 0");
    host.add_guest(
        "bad",
        "bad",
        "[retry]\nmax_attempts = 1\n[breaker]\nfailures = 0",
        "unreachable",
    );
    let (look, operate) = ("l".repeat(32), "o".repeat(32));
    host.write("look", &look).write("operate", &operate);
    host.write("loopabull.toml", "token_file = 'look'\noperate_token_file = 'operate'\n");
    let daemon = host.start(&["--config", "loopabull.toml", "--workers", "1"]);
    let messages: Vec<_> = (0..3).map(|n| message(&format!("f-{n}"), "bad", "{}")).collect();
    host.inject(&messages);
    wait_for("the runs", || (host.runs().len() == 3).then_some(()));
    let browser = Browser::start(1280, 900, Colours::Light);
    let at = |path: &str| format!("http://operator:{operate}@{}{path}", daemon.address());

    // The buttons can be used by everybody too.
    for path in ["/", "/tasks", "/failures"] {
        browser.open(&at(path));
        assert_eq!(
            browser.run("return document.querySelectorAll('main button').length > 0"),
            true,
            "{path}"
        );
        browser.run(&axe());
        assert_eq!(browser.run_async(AXE), json!([]), "{path}");
    }
    browser.open(&at("/tasks"));
    press_button(&browser, "good", "Pause");
    assert_eq!(browser.accept_dialog(Some("until Monday")), "Why is task good paused?");
    wait_until_said(&browser, "task `good` is paused");
    browser.wait_until(
        "the pause",
        "return document.body.innerText.includes('paused by the operator: until Monday')",
    );
    press_button(&browser, "good", "Resume");
    assert_eq!(browser.accept_dialog(None), "Resume task good?");
    wait_until_said(&browser, "task `good` is resumed");
    browser.wait_until(
        "its end",
        "return !document.querySelector('main').innerText.includes('until Monday')",
    );

    browser.open(&at("/failures"));
    press_button(&browser, "bad", "Requeue");
    let asked = browser.accept_dialog(None);
    assert!(asked.starts_with("Requeue 3 dead letters of task bad like "), "{asked}");
    wait_until_said(&browser, "3 dead letters are requeued");
    wait_for("the runs", || (host.runs().len() == 6).then_some(()));
    browser.wait_until(
        "six runs",
        "return document.querySelector('#groups td.number').innerText === '6'",
    );
    press_button(&browser, "bad", "Drop");
    assert!(browser.accept_dialog(None).starts_with("Drop 3 dead letters of task bad "));
    wait_until_said(&browser, "3 dead letters are dropped");
    press_button(&browser, "bad", "Drop");
    wait_until_said(&browser, "There are no such dead letters.");

    browser.open(&at("/"));
    press_button(&browser, "workers", "Pause");
    browser.accept_dialog(Some("upgrade"));
    wait_until_said(&browser, "queue `workers` is paused");
    browser.wait_until(
        "the pause",
        "return document.querySelector('#pauses').innerText.includes('upgrade')",
    );
    browser.open(&at("/audit"));
    let audit = browser.text();
    for line in [
        "pause\ttask `good`: until Monday",
        "resume\ttask `good`",
        "requeue\tdead letters: task `bad`",
        "drop\tdead letters: task `bad`",
        "pause\tqueue `workers`: upgrade",
    ] {
        assert!(audit.contains(line), "{line}: {audit}");
    }
    daemon.stop();
}
