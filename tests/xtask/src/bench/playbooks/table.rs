//! The table of results.

use std::collections::BTreeSet;
use std::thread::available_parallelism;

use anyhow::{Context, Result};

use super::case::Case;
use super::setup::{Sample, Setup, WORKERS};
use crate::bench::figures::Figures;
use crate::command::{command, output};

/// The pairs of cases whose ratio is printed.
const RATIOS: [(Case, Case); 4] = [
    (Case::Cold, Case::Bare),
    (Case::Warm, Case::Bare),
    (Case::Warm, Case::Loopabull),
    (Case::Warm, Case::Rulebook),
];
const FOOTNOTE: &str = "\
Each number is the median of the rounds, with the minimum and the maximum. The queue is filled
before the measurement. The clock runs until the last playbook is done, and includes the start of
the workers. The processor time is that of all processes that were started for the playbooks,
including the daemon or the workers, until the last one ended. It does not include RabbitMQ.";

/// The results of all rounds.
pub(super) struct Table {
    rows: Vec<(Case, Vec<Sample>)>,
}

impl Table {
    /// Returns a table with an empty row for each case.
    pub(super) fn new(cases: &[Case]) -> Self {
        Self { rows: cases.iter().map(|&case| (case, Vec::new())).collect() }
    }

    /// Adds the result of a round.
    pub(super) fn add(&mut self, case: Case, sample: Sample) {
        let row = self.rows.iter_mut().find(|(known, _)| *known == case);
        row.expect("each measured case has a row").1.push(sample);
    }

    /// Prints the table, the ratios, and the versions and settings of the measurement.
    pub(super) fn print(&self, setup: &Setup, programs: &str) -> Result<()> {
        print!("{}{}{}", self.playbooks(), self.launcher(), self.ratios());
        let ansible = output(command(&setup.ansible_playbook).arg("--version"))?;
        let ansible = ansible_and_python(&ansible).context("Ansible does not print its version")?;
        let cores = available_parallelism().context("cannot count the cores")?;
        let (rounds, messages) = (self.rounds(), setup.messages);
        println!(
            "\nPlaybooks per round: {messages}, {WORKERS} at a time. Rounds: {rounds}. \
             Cores: {cores}. {ansible}, {programs}.\n{FOOTNOTE}"
        );
        for (case, samples) in &self.rows {
            let notes: BTreeSet<&str> = samples.iter().filter_map(|s| s.note.as_deref()).collect();
            if !notes.is_empty() {
                let notes: Vec<&str> = notes.into_iter().collect();
                println!("- {}: {}.", case.name(), notes.join("; "));
            }
        }
        Ok(())
    }

    fn playbooks(&self) -> String {
        let mut text = String::new();
        for (case, samples) in self.rows.iter().filter(|(case, _)| *case != Case::Launcher) {
            if text.is_empty() {
                text += "| | playbooks/s | CPU s for each |\n|---|--:|--:|\n";
            }
            let (rate, cpu) = (rate(samples).text(2), cpu(samples).text(3));
            text += &format!("| {} | {rate} | {cpu} |\n", case.name());
        }
        text
    }

    fn launcher(&self) -> String {
        let samples = self.samples(Case::Launcher);
        if samples.is_empty() {
            return String::new();
        }
        let milliseconds = |of: fn(&Sample) -> f64| -> Figures {
            samples.iter().map(|sample| of(sample) * 1_000.0).collect()
        };
        let wall = milliseconds(|sample| sample.seconds).text(1);
        let cpu = milliseconds(|sample| sample.cpu_seconds).text(1);
        format!("\n{}: {wall} ms, CPU {cpu} ms\n", Case::Launcher.name())
    }

    fn ratios(&self) -> String {
        let mut text = String::new();
        for (one, other) in RATIOS {
            let (of_one, of_other) = (self.samples(one), self.samples(other));
            let ratio =
                |of: fn(&[Sample]) -> Figures| Some(of(of_one).median()? / of(of_other).median()?);
            if let (Some(rate), Some(cpu)) = (ratio(rate), ratio(cpu)) {
                let (one, other) = (one.slug(), other.slug());
                text += &format!("{one} / {other}: playbooks/s × {rate:.2}, CPU × {cpu:.2}\n");
            }
        }
        if text.is_empty() { text } else { format!("\n{text}") }
    }

    fn samples(&self, case: Case) -> &[Sample] {
        let row = self.rows.iter().find(|(known, _)| *known == case);
        row.map_or(&[], |(_, samples)| samples)
    }

    fn rounds(&self) -> usize {
        self.rows.iter().map(|(_, samples)| samples.len()).max().unwrap_or_default()
    }
}

fn rate(samples: &[Sample]) -> Figures {
    samples.iter().map(|sample| 1.0 / sample.seconds).collect()
}

fn cpu(samples: &[Sample]) -> Figures {
    samples.iter().map(|sample| sample.cpu_seconds).collect()
}

/// Parses the output of `ansible-playbook --version`.
fn ansible_and_python(text: &str) -> Option<String> {
    let (_, core) = text.lines().next()?.split_once("[core ")?;
    let python = text.lines().find_map(|line| line.trim().strip_prefix("python version = "))?;
    let python = python.split_whitespace().next()?;
    Some(format!("ansible-core {}, Python {python}", core.trim_end_matches(']')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, cpu_seconds: f64) -> Sample {
        Sample { seconds, cpu_seconds, note: None }
    }

    #[test]
    fn the_ratios_compare_the_medians_of_the_measured_cases() {
        let mut table = Table::new(&[Case::Bare, Case::Warm, Case::Rulebook, Case::Launcher]);
        table.add(Case::Bare, sample(0.5, 0.9));
        table.add(Case::Warm, sample(0.125, 0.3));
        table.add(Case::Rulebook, sample(0.625, 1.0));
        table.add(Case::Launcher, sample(0.01, 0.005));
        assert_eq!(
            table.ratios(),
            "\nwarm / bare: playbooks/s × 4.00, CPU × 0.33\n\
             warm / rulebook: playbooks/s × 5.00, CPU × 0.30\n"
        );
        assert_eq!(
            table.launcher(),
            "\nlauncher overhead per run: 10.0 (10.0–10.0) ms, CPU 5.0 (5.0–5.0) ms\n"
        );
        let rows = table.playbooks();
        assert!(rows.contains("| 8.00 (8.00–8.00) | 0.300 (0.300–0.300) |\n"), "{rows}");
    }

    #[test]
    fn the_versions_of_ansible_and_python_are_parsed() {
        let text = "ansible-playbook [core 2.14.18]\n  config file = None\n  \
                    python version = 3.11.2 (main, Sep 14 2024, 03:00:30) [GCC 12.2.0] (/usr/bin/python3)";
        assert_eq!(ansible_and_python(text).unwrap(), "ansible-core 2.14.18, Python 3.11.2");
    }
}
