//! The alert rules and the dashboard in `host/monitoring`, tested by `promtool` with the metrics of real daemons.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::test_host::{TestHost, message, repository, text, wait_for};

fn folder() -> PathBuf {
    repository().join("host/monitoring")
}

fn promtool(host: &TestHost, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).current_dir(host.path(".")).output();
    let output = output.expect("promtool is installed by `cargo xtask test`");
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Checks which alerts fire if metrics have had these values for an hour.
pub(crate) fn check(host: &TestHost, metrics: &str, expected: &[&str]) {
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        // `promtool` has no notation for the others.
        let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        Some(json!({"series": series, "values": format!("{value}x60")}))
    };
    let lines =
        metrics.lines().filter(|line| line.starts_with("loopabull_") || line.starts_with("up{"));
    let series: Vec<Value> = lines.filter_map(sample).collect();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let fires = |name: &&str| json!({"labels": format!("{{alertname=\"{name}\"}}"), "value": 1});
    let test = json!({
        "rule_files": [folder().join("alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": "30m",
                "exp_samples": expected.iter().map(fires).collect::<Vec<_>>(),
            }],
        }],
    });
    // JSON is YAML.
    host.write("alerts-test.yml", test.to_string());
    let (is_right, said) = promtool(host, &["test", "rules", "alerts-test.yml"]);
    assert!(is_right, "expected {expected:?}: {said}");
}

/// Returns the metrics of a daemon that has done some work and has nothing to tell.
fn healthy(host: &TestHost) -> String {
    host.add_guest("good", "good", "", "i32.const 0");
    let daemon = host.start(&["--workers", "1"]);
    host.inject(&[message("m-1", "good", "{}")]);
    wait_for("the run", || (daemon.count("runs") == 1).then_some(()));
    daemon.wait_until_idle();
    let metrics = daemon.get("/metrics").1;
    daemon.stop();
    metrics + "up{job=\"loopabull\"} 1\n"
}

#[test]
fn each_alert_fires_for_its_reason_and_no_other() {
    let host = TestHost::new();
    let healthy = healthy(&host);
    check(&host, &healthy, &[]);
    let cases = [
        ("up{job=\"loopabull\"}", "LoopabullDown"),
        ("loopabull_problems", "LoopabullNotReady"),
        ("loopabull_warnings{kind=\"lost\"}", "LoopabullMessagesLost"),
        ("loopabull_warnings{kind=\"disk\"}", "LoopabullDiskNearlyFull"),
        ("loopabull_warnings{kind=\"silence\"}", "LoopabullSourceSilent"),
        ("loopabull_warnings{kind=\"pause\"}", "LoopabullPaused"),
        ("loopabull_warnings{kind=\"failing\"}", "LoopabullTaskFails"),
        ("loopabull_warnings{kind=\"held\"}", "LoopabullMessagesHeld"),
        ("loopabull_warnings{kind=\"dead\"}", "LoopabullDeadLetters"),
        ("loopabull_warnings{kind=\"wait\"}", "LoopabullMessagesWait"),
    ];
    for (series, alert) in cases {
        let (before, after) = if alert == "LoopabullDown" { (1, 0) } else { (0, 1) };
        let line = format!("{series} {before}\n");
        assert!(healthy.contains(&line), "{line} is not in:\n{healthy}");
        check(&host, &healthy.replace(&line, &format!("{series} {after}\n")), &[alert]);
    }
    // Prometheus does not know of the daemon.
    check(&host, &healthy.replace("up{job=\"loopabull\"} 1\n", ""), &["LoopabullUnknown"]);
    // There are no other alerts, and no other kinds of warnings.
    let rules = fs::read_to_string(folder().join("alerts.yml")).unwrap();
    assert_eq!(rules.matches("- alert: ").count(), cases.len() + 1);
    assert_eq!(healthy.matches("\nloopabull_warnings{").count(), cases.len() - 2);
}

/// Returns the names of the metrics in a query.
fn names(query: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query.split(|c| !is_part(c)).filter(|word| word.starts_with("loopabull_")).collect()
}

/// The queries can be parsed, and name only metrics that there are.
#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let host = TestHost::new();
    let dashboard = fs::read_to_string(folder().join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 10, "{queries:?}");
    let number =
        |(number, query): (usize, &&str)| json!({"record": format!("q:{number}"), "expr": query});
    let rules: Vec<_> = queries.iter().enumerate().map(number).collect();
    host.write("queries.yml", json!({"groups": [{"name": "q", "rules": rules}]}).to_string());
    let (is_right, said) = promtool(&host, &["check", "rules", "queries.yml"]);
    assert!(is_right, "{said}");
    let known = sample_names();
    for name in queries.iter().flat_map(|query| names(query)) {
        assert!(known.iter().any(|known| known == name), "`{name}` is no metric");
    }
}

/// Returns the names of all samples, from the list of metrics in the sources. The OpenMetrics format adds the unit, `_total` to
/// the name of a counter, and `_bucket` to that of a histogram.
fn sample_names() -> Vec<String> {
    let source = fs::read_to_string(repository().join("host/src/observe/metrics.rs")).unwrap();
    let list =
        source.split("\nmetrics! {\n").nth(1).unwrap().split("\n}\n").next().unwrap().to_owned();
    // A declaration may be on several lines.
    let name = |declaration: &str| {
        let (kind, rest) = declaration.split_once(" = \"")?;
        let kind = kind.rsplit(": ").next()?;
        let (name, rest) = rest.split_once('"')?;
        let unit = match rest
            .trim_start()
            .strip_prefix("in ")
            .map(|unit| unit.split_whitespace().next())
        {
            Some(Some("Seconds")) => "_seconds",
            Some(Some("Bytes")) => "_bytes",
            _ => "",
        };
        let suffix = match kind {
            kind if kind.contains("Counter") => "_total",
            kind if kind.contains("Histogram") => "_bucket",
            _ => "",
        };
        Some(format!("loopabull_{name}{unit}{suffix}"))
    };
    let names: Vec<_> = list.split(';').filter_map(name).collect();
    assert!(names.len() > 30 && names.contains(&"loopabull_runs_total".to_owned()), "{names:?}");
    names
}
