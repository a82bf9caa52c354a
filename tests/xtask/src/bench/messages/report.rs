//! The table, the ratios, the JSON file and the chart.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::case::Case;
use super::options::Options;
use super::setup::{Sample, Setup, WORKERS};
use crate::bench::figures::Figures;

const FOOTNOTE: &str = "\
Each number is the median of the rounds, with the minimum and the maximum. A message has about a kilobyte. The
processor time is that of the daemon or of `inject`, without RabbitMQ. The host's rate counts recorded runs. The ideal
takes, for each message, the time of the raw queue and that of the bare call, one after the other. `inject` includes its
start and the reading of its file, the raw publisher neither. That
of a burst includes the receiving by ZeroMQ. A burst without RabbitMQ includes the
time until RabbitMQ is back. Its ideal takes the time of the raw subscriber and that of the raw publisher, one after the other. The task of Celery and Dramatiq
writes one byte; the Python loopabull starts a program for each message.";

/// The results of all rounds.
pub(super) struct Report {
    rows: Vec<(Case, Vec<Sample>)>,
}

impl Report {
    /// Returns a report with an empty row for each case.
    pub(super) fn new(cases: &[Case]) -> Self {
        Self { rows: cases.iter().map(|&case| (case, Vec::new())).collect() }
    }

    /// Adds the result of a round.
    pub(super) fn add(&mut self, case: Case, sample: Sample) {
        let row = self.rows.iter_mut().find(|(known, _)| *known == case);
        row.expect("each measured case has a row").1.push(sample);
    }

    /// Prints the table and the ratios, and writes the files that the options name.
    pub(super) fn print(&self, setup: &Setup, options: &Options) -> Result<()> {
        let cores = available_parallelism().context("cannot count the cores")?;
        let build = if options.programs.debug { "debug build" } else { "release build" };
        println!(
            "{}{}\nMessages per round: {}. Rounds: {}. Workers: {WORKERS}. Cores: {cores}, {build}.\n{FOOTNOTE}",
            self.table(),
            self.ratio_lines(),
            setup.messages,
            options.rounds,
        );
        for (case, samples) in &self.rows {
            let notes: BTreeSet<&str> = samples.iter().filter_map(|s| s.note.as_deref()).collect();
            if !notes.is_empty() {
                let notes: Vec<&str> = notes.into_iter().collect();
                println!("- {}: {}.", case.name(), notes.join("; "));
            }
        }
        if let Some(path) = &options.json {
            write(path, &format!("{:#}\n", self.json()))?;
            write(&path.with_extension("svg"), &self.chart())?;
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = "| | messages/s | CPU µs for each |\n|---|--:|--:|\n".to_owned();
        for (case, samples) in &self.rows {
            let rate = rate(samples).text(0);
            let cpu: Figures = samples.iter().filter_map(|sample| sample.cpu).collect();
            text += &format!("| {} | {rate} | {} |\n", case.name(), cpu.text(0));
        }
        text
    }

    /// Returns the median rate of a case, if it was measured.
    fn median(&self, case: Case) -> Option<f64> {
        let (_, samples) = self.rows.iter().find(|(known, _)| *known == case)?;
        rate(samples).median()
    }

    /// Returns the median processor time of a case for each message, in microseconds, if it was measured.
    fn median_cpu(&self, case: Case) -> Option<f64> {
        let (_, samples) = self.rows.iter().find(|(known, _)| *known == case)?;
        samples.iter().filter_map(|sample| sample.cpu).collect::<Figures>().median()
    }

    /// Returns the name of each ratio, and its value.
    fn ratios(&self) -> Vec<(String, f64)> {
        let ideal = |queue: Case| {
            let seconds = 1.0 / self.median(queue)? + 1.0 / self.median(Case::RawComponent)?;
            Some(1.0 / seconds)
        };
        let of = |case: Case, other: Option<f64>| Some(self.median(case)? / other?);
        let (rabbitmq, embedded) = (Case::DrainRabbitMq, Case::DrainEmbedded);
        let mut ratios = vec![
            ("drain, RabbitMQ / ideal".to_owned(), of(rabbitmq, ideal(Case::RawConsume))),
            (
                "drain, RabbitMQ classic queue / ideal".to_owned(),
                of(Case::DrainClassic, ideal(Case::RawConsumeClassic)),
            ),
            ("drain, embedded / ideal".to_owned(), of(embedded, ideal(Case::RawSqlite))),
        ];
        for peer in [Case::Celery, Case::Dramatiq, Case::Loopabull] {
            for case in [rabbitmq, embedded] {
                let name = format!("{} / {}", case.slug(), peer.slug());
                ratios.push((name, of(case, self.median(peer))));
            }
        }
        let publish = self.median(Case::RawPublish);
        ratios
            .push(("inject-rabbit-mq / raw-publish".to_owned(), of(Case::InjectRabbitMq, publish)));
        let seconds = |rate: Option<f64>| Some(1.0 / rate?);
        let received = seconds(self.median(Case::RawReceive));
        let ideal =
            received.zip(seconds(publish)).map(|(receive, publish)| 1.0 / (receive + publish));
        let added = self.median_cpu(Case::BurstSigned).zip(self.median_cpu(Case::BurstEmbedded));
        let added = added.map(|(signed, unsigned)| signed - unsigned);
        let verify = self.median_cpu(Case::RawVerify).zip(added);
        let name = "raw-verify / the processor time that signatures add".to_owned();
        ratios.push((name, verify.map(|(verify, added)| verify / added)));
        let name = "burst-rabbit-mq / raw-receive and raw-publish".to_owned();
        ratios.push((name, of(Case::BurstRabbitMq, ideal)));
        ratios.into_iter().filter_map(|(name, ratio)| Some((name, ratio?))).collect()
    }

    fn ratio_lines(&self) -> String {
        let lines = self.ratios().into_iter().map(|(name, ratio)| format!("{name}: {ratio:.2}\n"));
        let text: String = lines.collect();
        if text.is_empty() { text } else { format!("\n{text}") }
    }

    fn json(&self) -> Value {
        let case = |(case, samples): &(Case, Vec<Sample>)| {
            let rounds = samples.iter().map(|sample| {
                json!({"messages_per_second": sample.rate, "cpu_us": sample.cpu, "note": sample.note})
            });
            (case.slug(), Value::from_iter(rounds))
        };
        let cases: serde_json::Map<String, Value> = self.rows.iter().map(case).collect();
        let ratios: serde_json::Map<String, Value> =
            self.ratios().into_iter().map(|(name, ratio)| (name, json!(ratio))).collect();
        json!({"cases": cases, "ratios": ratios})
    }

    /// Returns a chart of the median rates, as SVG.
    fn chart(&self) -> String {
        const LINE: usize = 24;
        let medians: Vec<_> = Case::value_variants()
            .iter()
            .filter_map(|case| Some((case.name(), self.median(*case)?)))
            .collect();
        let most = medians.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
        let bars = medians.iter().enumerate().map(|(number, (name, rate))| {
            let (y, width) = (number * LINE, rate / most * 300.0);
            let name = name.replace('&', "&amp;").replace('<', "&lt;").replace('`', "");
            format!(
                "<text x='370' y='{}' text-anchor='end'>{name}</text>\
                 <rect x='380' y='{}' width='{width:.1}' height='16' fill='#3c6eb4'/>\
                 <text x='{:.1}' y='{}'>{rate:.0}/s</text>\n",
                y + 17,
                y + 4,
                385.0 + width,
                y + 17,
            )
        });
        let bars: String = bars.collect();
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='760' height='{}' font-family='sans-serif' \
             font-size='12'>\n{bars}</svg>\n",
            medians.len() * LINE + 8
        )
    }
}

fn rate(samples: &[Sample]) -> Figures {
    samples.iter().map(|sample| sample.rate).collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let cases = [Case::RawConsume, Case::RawComponent, Case::DrainRabbitMq, Case::Celery];
        let mut report = Report::new(&cases);
        for (case, rate) in cases.into_iter().zip([30_000.0, 15_000.0, 8_000.0, 2_000.0]) {
            report.add(case, Sample { rate, cpu: None, note: None });
        }
        report
    }

    #[test]
    fn the_ideal_takes_the_time_of_the_queue_and_of_the_call() {
        let ratios = report().ratio_lines();
        // One message takes 1/30,000 s and 1/15,000 s, so the ideal is 10,000 each second.
        assert_eq!(ratios, "\ndrain, RabbitMQ / ideal: 0.80\ndrain-rabbit-mq / celery: 4.00\n");
    }

    #[test]
    fn the_chart_has_a_bar_for_each_measured_case() {
        let chart = report().chart();
        assert_eq!(chart.matches("<rect").count(), 4);
        assert!(chart.contains("width='300.0'") && chart.contains("8000/s"), "{chart}");
    }
}
