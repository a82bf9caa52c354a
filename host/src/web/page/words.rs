//! How the pages say times, durations, numbers, outcomes, and what others wrote.

use std::time::Duration;

use jiff::Timestamp;
use loopabull_model::Outcome;
use maud::{Markup, html};

/// Returns a time in milliseconds since 1970 as the time that has passed, with the exact time as its title.
pub(super) fn ago(ms: i64) -> Markup {
    let Some(time) = Timestamp::from_millisecond(ms).ok().filter(|_| ms > 0) else {
        return html! { "–" };
    };
    let passed = Timestamp::now().duration_since(time);
    let text = match Duration::try_from(passed) {
        Ok(passed) => format!("{} ago", rough(passed)),
        Err(_) => "in the future".to_owned(),
    };
    let exact = time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! { time datetime=(time.to_string()) title=(exact) { (text) } }
}

/// Returns a time in milliseconds since 1970 in full.
pub(super) fn exact(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms > 0 => time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        _ => "–".to_owned(),
    }
}

/// Returns a duration in its largest unit: `5 s`, `3 min`, `2 h`, `4 days`.
pub(super) fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Returns how long a run took.
pub(super) fn took(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        micros @ 1_000_000..120_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ => rough(duration),
    }
}

/// Returns a number with spaces between its thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Returns a number of things: `1 run`, `2 runs`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Returns text of a message or a task, which cannot change the direction of the text around it.
pub(super) fn hostile(text: &str) -> Markup {
    html! { span .hostile { (text) } }
}

/// Returns an outcome with its reason. Its colour repeats what the word says.
pub(super) fn outcome(outcome: &Outcome) -> Markup {
    let class = match outcome {
        outcome if outcome.is_success() => "good",
        outcome if outcome.is_attempt() => "bad",
        _ => "warn",
    };
    let text = outcome.to_string();
    html! {
        @match text.split_once(": ") {
            Some((name, reason)) => {
                b class=(class) { (name) } " " span .hostile { (reason) }
            }
            None => b class=(class) { (text) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_short() {
        assert_eq!(number(489_989), "489\u{202f}989");
        assert_eq!(number(1_000_000), "1\u{202f}000\u{202f}000");
        assert_eq!(number(12), "12");
        assert_eq!(counted(1, "run", "runs"), "1 run");
        assert_eq!(counted(0, "run", "runs"), "0 runs");
        let seconds = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!(
            [5, 119, 120, 7199, 7200, 172_800].map(seconds),
            ["5 s", "119 s", "2 min", "119 min", "2 h", "2 days"]
        );
        assert_eq!(took(Duration::from_micros(999)), "999 µs");
        assert_eq!(took(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(took(Duration::from_secs(600)), "10 min");
    }

    #[test]
    fn reasons_are_escaped() {
        let shown = outcome(&Outcome::Trap { reason: "<script>alert(1)</script>".into() });
        assert_eq!(
            shown.into_string(),
            "<b class=\"bad\">trap</b> <span class=\"hostile\">&lt;script&gt;alert(1)&lt;/script&gt;</span>"
        );
    }
}
