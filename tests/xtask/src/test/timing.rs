//! Prints the durations of the steps of a run and of its slowest tests. No test fails because it is slow.

use std::fs;
use std::time::{Duration, Instant};

use crate::command::say;
use crate::repository;

/// The path of nextest's report below `target`.
const JUNIT: &str = "nextest/default/junit.xml";
/// The number of slowest tests that are printed.
const SLOWEST: usize = 30;

/// The steps so far, with the time that each took.
#[derive(Default)]
pub(super) struct Timing(Vec<(&'static str, Duration)>);

impl Timing {
    pub(super) fn measure<T>(&mut self, name: &'static str, step: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = step();
        self.0.push((name, start.elapsed()));
        done
    }

    /// Prints a line for each step.
    pub(super) fn print(&self) {
        say("durations of the steps:");
        for (name, time) in &self.0 {
            eprintln!("{:>8.1} s  {name}", time.as_secs_f64());
        }
        let whole: Duration = self.0.iter().map(|(_, time)| *time).sum();
        eprintln!("{:>8.1} s  in total", whole.as_secs_f64());
    }

    /// Prints the slowest tests of the last run, as nextest reported them.
    pub(super) fn print_slowest_tests(&self) {
        // Without a report, the tests were not started.
        let Ok(report) = fs::read_to_string(repository::target().join(JUNIT)) else { return };
        let mut tests = tests(&report);
        let together: f64 = tests.iter().map(|(time, _)| time).sum();
        tests.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        say(&format!("the slowest of {} tests, which took {together:.0} s in total:", tests.len()));
        for (time, name) in tests.iter().take(SLOWEST) {
            eprintln!("{time:>8.1} s  {name}");
        }
    }
}

/// Returns the time in seconds and the name of each test in a JUnit report.
fn tests(report: &str) -> Vec<(f64, String)> {
    let attribute = |element: &str, name: &str| {
        let value = element.split(&format!(" {name}=\"")).nth(1)?;
        value.split('"').next().map(str::to_owned)
    };
    let elements = report.split("<testcase").skip(1);
    elements
        .filter_map(|element| {
            let element = element.split('>').next()?;
            let time = attribute(element, "time")?.parse().ok()?;
            let names = [attribute(element, "classname")?, attribute(element, "name")?];
            Some((time, names.join(" ")))
        })
        .collect()
}

#[cfg(test)]
mod tests_of_the_report {
    use super::*;

    #[test]
    fn times_and_names_are_read_from_the_report() {
        let report = r#"<testsuites><testsuite name="host::it" time="9.0">
            <testcase name="kill::a" classname="host::it" timestamp="x" time="1.5"/>
            <testcase name="b" classname="model" time="0.25"><system-out>time="7"</system-out></testcase>
        </testsuite></testsuites>"#;
        let expected = [(1.5, "host::it kill::a".to_owned()), (0.25, "model b".to_owned())];
        assert_eq!(tests(report), expected);
    }
}
