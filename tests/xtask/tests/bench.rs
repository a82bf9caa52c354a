//! Short runs of `cargo xtask bench`, so that the commands keep working. They measure nothing: debug builds and few messages.
#![expect(clippy::disallowed_methods, reason = "the tests start the program")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// The cases that need no other job queue.
const CASES: [&str; 15] = [
    "raw-consume",
    "raw-consume-classic",
    "raw-component",
    "drain-rabbit-mq",
    "drain-classic",
    "raw-sqlite",
    "drain-embedded",
    "raw-publish",
    "inject-rabbit-mq",
    "inject-embedded",
    "raw-receive",
    "burst-rabbit-mq",
    "burst-embedded",
    "burst-signed",
    "raw-verify",
];

#[test]
fn the_benchmark_of_messages_measures_each_case() {
    let mut arguments = vec!["messages", "--messages", "300", "--rounds", "1", "--only"];
    arguments.extend(CASES);
    let (figures, said, chart) = measure(&arguments);
    for case in CASES {
        let rate = figures["cases"][case][0]["messages_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{case}: {figures}");
    }
    for ratio in ["drain, RabbitMQ / ideal", "drain, embedded / ideal"] {
        assert!(figures["ratios"][ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{figures}");
    }
    assert!(said.contains("0 of 300 dropped"), "{said}");
    assert_eq!(chart.matches("<rect").count(), CASES.len());
}

/// Runs a measurement with debug builds, and returns its figures, what it printed, and its chart.
fn measure(arguments: &[&str]) -> (Value, String, String) {
    let binaries = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_xtask"));
    bench.arg("bench").arg(arguments[0]).arg("--debug").arg("--bin-dir").arg(binaries);
    bench.arg("--raw-limits").arg(binaries.join("loopabull-bench")).arg("--json").arg(&json);
    bench.args(&arguments[1..]);
    let output = bench.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let chart = std::fs::read_to_string(json.with_extension("svg")).unwrap_or_default();
    (serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap(), said, chart)
}

#[test]
fn the_benchmark_of_growth_measures_each_size() {
    let arguments = ["growth", "--messages", "1000", "--up-to", "10000", "--only", "runs"];
    let (figures, said, _) = measure(&arguments);
    let points = figures["runs"].as_array().unwrap();
    assert_eq!(points.len(), 2, "{figures}");
    assert!(points.iter().all(|point| point["messages_per_second"].as_f64() > Some(0.0)));
    assert!(said.contains("| runs | worked/s |"), "{said}");
    assert!(figures["runs"][1]["command_ms"].as_f64() > Some(0.0), "{figures}");
}

#[test]
fn the_benchmark_of_the_day_after_works_both_backlogs() {
    let (figures, said, _) = measure(&["day-after", "--messages", "200"]);
    let rows = figures.as_array().unwrap();
    let counts: Vec<_> = rows.iter().map(|row| (&row["runs"], &row["dead_letters"])).collect();
    assert_eq!(counts, [(&json!(20), &json!(180)), (&json!(200), &json!(0))], "{figures}");
    assert!(said.contains("| 10 | 20 | 180 |"), "{said}");
}

#[test]
fn the_benchmark_of_memory_measures_both_queues() {
    let (figures, said, _) = measure(&["memory", "--messages", "200", "--idle", "1"]);
    let rows = figures.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{figures}");
    for row in rows {
        assert_eq!(row["memory_mib"].as_array().unwrap().len(), 10, "{figures}");
        assert!(row["journal_ratio"].as_f64() > Some(0.5), "{figures}");
    }
    assert!(said.contains("| embedded |") && said.contains("| rabbitmq |"), "{said}");
}

#[test]
fn the_benchmark_of_latency_measures_both_queues() {
    let (figures, said, _) = measure(&["latency", "--messages", "20", "--rates", "50"]);
    let names: Vec<_> = figures.as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names.len(), 4, "{figures}");
    assert!(said.contains("| embedded | 50 |") && said.contains("| rabbitmq | 50 |"), "{said}");
    for row in figures.as_array().unwrap() {
        assert!(row["p50"].as_f64() > Some(0.0) && row["p50"].as_f64() <= row["p99.9"].as_f64());
    }
}
