//! A short run of `cargo xtask bench messages`, so that the command keeps working. It measures nothing: debug builds and few
//! messages.
#![expect(clippy::disallowed_methods, reason = "the test starts the program")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The cases that need no Python package.
const CASES: [&str; 9] = [
    "raw-consume",
    "raw-component",
    "drain-rabbit-mq",
    "raw-sqlite",
    "drain-embedded",
    "raw-publish",
    "inject-rabbit-mq",
    "inject-embedded",
    "burst-embedded",
];

#[test]
fn the_benchmark_of_messages_measures_each_case() {
    let binaries = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_xtask"));
    bench.args(["bench", "messages", "--debug", "--messages", "300", "--rounds", "1"]);
    bench.arg("--bin-dir").arg(binaries).arg("--raw-limits").arg(binaries.join("loopabull-bench"));
    bench.arg("--json").arg(&json).arg("--only").args(CASES);
    let output = bench.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for case in CASES {
        let rate = figures["cases"][case][0]["messages_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{case}: {figures}");
    }
    for ratio in ["drain, RabbitMQ / ideal", "drain, embedded / ideal"] {
        assert!(figures["ratios"][ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{figures}");
    }
    assert!(said.contains("0 of 300 dropped"), "{said}");
    let chart = std::fs::read_to_string(json.with_extension("svg")).unwrap();
    assert_eq!(chart.matches("<rect").count(), CASES.len());
}
