//! The command `runs` lists and shows the runs in the journal of this host.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use loopabull_model::{
    HostResults, LayerReport, PlaybookReport, Run, RunId, TaskFailure, TaskKind,
};

use crate::commands::again::{self, AgainArgs};
use crate::commands::cancel::{self, CancelArgs};
use crate::commands::client::{Client, ClientError, Remote, found};
use crate::commands::failure::{BAD_ARGUMENTS, DONE, Failure};
use crate::commands::journal::journal;
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, time};
use crate::compare::{Comparison, Line, Side, compare, good_run};
use crate::config::Config;
use crate::journal::{Found, Journal, Search, term};
use crate::percent::encoded;

/// The maximum number of runs that the daemon is asked for at once.
const PART: usize = 500;

/// List, show, compare, repeat or cancel the runs of this host
///
/// Without a subcommand, the 20 newest runs are listed.
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    List(ListArgs),
    Show(ShowArgs),
    Compare(CompareArgs),
    Again(AgainArgs),
    Cancel(CancelArgs),
}

/// List runs, newest first
///
/// A search consists of terms such as `task:build`, `outcome:failure`, `topic:org.fedoraproject.#`, `after:2h`,
/// `took:>5s`, `attempt:>1`, `msg.package:bash` or `text:"no space left"`. All must hold. A minus before a term
/// negates it. `task:` and `outcome:` take several values: `task:a,b`. The qualifiers are task, outcome, topic,
/// after, before, took, attempt, worker, kind, message, run, msg.NAME and text; the page for runs explains each.
///
/// Put the whole search into single quotes. Write `--` before a search that begins with a minus.
///
/// Example: `loopabull-host runs list 'outcome:failure after:1d -task:build'`
#[derive(Debug, Default, Args)]
struct ListArgs {
    /// A search
    search: Vec<String>,
    /// Only runs of this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Only runs with this outcome
    #[arg(long, value_parser = loopabull_model::Outcome::NAMES)]
    outcome: Option<String>,
    /// Only runs of this message
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// Maximum number of runs
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u32,
    /// Print a JSON object for each run, with its output
    #[arg(long)]
    json: bool,
}

/// Show a run with its output
#[derive(Debug, Args)]
struct ShowArgs {
    /// Id of the run, from `runs list`
    id: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Show what differs between a run and a good run of its task
///
/// The good run is the last successful one before it, or else the newest successful one after it.
#[derive(Debug, Args)]
struct CompareArgs {
    /// Id of the run, from `runs list`
    id: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &RunsArgs) -> Result<u8, Failure> {
    let remote = &args.remote;
    let default = || ListArgs { limit: 20, ..ListArgs::default() };
    match &args.command {
        None => list(config, remote, &default()),
        Some(RunsCommand::List(args)) => list(config, remote, args),
        Some(RunsCommand::Show(args)) => show(config, remote, args),
        Some(RunsCommand::Compare(args)) => compare_runs(config, remote, args),
        Some(RunsCommand::Again(args)) => again::run(config, remote, args),
        Some(RunsCommand::Cancel(args)) => cancel::run(config, remote, args),
    }
}

fn list(config: &Config, remote: &Remote, args: &ListArgs) -> Result<u8, Failure> {
    let text = search_text(args);
    let search = Search::parse(&text, Timestamp::now()).map_err(|error| {
        let error = anyhow!("search `{text}`: {error}");
        Failure::with_hint(error, "read `loopabull-host runs list --help`").with_code(BAD_ARGUMENTS)
    })?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let runs = remote.look(
        config,
        |daemon| ask_for_runs(daemon, &text, limit),
        || {
            let journal = journal(&config.state)?;
            Ok(block_on(journal.search(search, None, limit, Duration::MAX))??.runs)
        },
    )?;
    if args.json {
        for run in &runs {
            print(&json(run))?;
        }
        return Ok(DONE);
    }
    let headings = ["STARTED", "TASK", "KIND", "MESSAGE", "ATTEMPT", "TOOK", "OUTCOME", "RUN"];
    let mut table = Table::new(&headings);
    for run in &runs {
        table.push(vec![
            time(run.started_at_ms),
            run.task.to_string(),
            run.kind.to_string(),
            run.message_id.to_string(),
            run.attempt.to_string(),
            took(run),
            run.outcome.to_string(),
            run.id.to_string(),
        ]);
    }
    print(&table.render())?;
    Ok(DONE)
}

/// Asks for runs part by part, because the daemon looks for each part for a short time only.
fn ask_for_runs(daemon: &Client, search: &str, limit: usize) -> Result<Vec<Run>, ClientError> {
    let mut runs = Vec::new();
    let mut before: Option<String> = None;
    while runs.len() < limit {
        let part = (limit - runs.len()).min(PART).to_string();
        let parameters =
            [("search", Some(search)), ("before", before.as_deref()), ("limit", Some(&part))];
        let found: Found = daemon.get("runs", &parameters)?;
        runs.extend(found.runs);
        before = match found.next {
            Some(place) => Some(place.to_string()),
            None => break,
        };
    }
    Ok(runs)
}

/// Returns the search that the arguments ask for.
fn search_text(args: &ListArgs) -> String {
    let flags = [("task", &args.task), ("outcome", &args.outcome), ("message", &args.message)];
    let flags = flags.into_iter().filter_map(|(name, value)| Some(term(name, value.as_deref()?)));
    flags.chain(args.search.iter().cloned()).collect::<Vec<_>>().join(" ")
}

fn find(config: &Config, remote: &Remote, id: &str) -> Result<Run, Failure> {
    let run = remote.look(
        config,
        |daemon| found(daemon.get(&format!("runs/{}", encoded(id)), &[])),
        || Ok(block_on(journal(&config.state)?.find(RunId::new(id)))??),
    )?;
    run.ok_or_else(|| {
        let error = anyhow!("no run has the id `{id}`");
        Failure::with_hint(error, "list recent runs with `loopabull-host runs list`")
    })
}

fn compare_runs(config: &Config, remote: &Remote, args: &CompareArgs) -> Result<u8, Failure> {
    let run = find(config, remote, &args.id)?;
    let path = format!("runs/{}/compare", encoded(&args.id));
    let comparison = remote.look(
        config,
        |daemon| found(daemon.get(&path, &[])),
        || compare_in_files(&journal(&config.state)?, &run),
    )?;
    let Some(comparison) = comparison else {
        let error = anyhow!("no other run of task `{}` succeeded", run.task);
        return Err(Failure::with_hint(
            error,
            "show the run alone with `loopabull-host runs show`",
        ));
    };
    if args.json {
        let text = serde_json::to_string(&comparison).expect("a comparison has only JSON types");
        print(&(text + "\n"))?;
        return Ok(DONE);
    }
    let mut table = Table::new(&["", "THIS RUN", "GOOD RUN"]);
    for fact in comparison.facts.iter().filter(|fact| fact.differs()) {
        let cell = |text: &str| text.replace('\n', ", ");
        table.push(vec![fact.name.clone(), cell(&fact.run), cell(&fact.other)]);
    }
    print(&table.render())?;
    let Comparison { message, output, .. } = &comparison;
    for (name, lines) in [("message", message.as_deref()), ("output", Some(&output[..]))] {
        let Some(lines) = lines else {
            print(&format!("\n{name}: not stored with one of the two runs\n"))?;
            continue;
        };
        let legend = if lines.is_empty() { "the same" } else { "+ this run, - good run" };
        print(&format!("\n{name}: {legend}\n"))?;
        for Line { side, text } in lines {
            print_plain(&match side {
                Side::Both => format!("  {text}\n"),
                Side::Run => format!("+ {text}\n"),
                Side::Other => format!("- {text}\n"),
                Side::Gap => "  …\n".to_owned(),
            })?;
        }
    }
    Ok(DONE)
}

/// Compares a run with a good run, if there is one.
fn compare_in_files(journal: &Journal, run: &Run) -> Result<Option<Comparison>, Failure> {
    Ok(block_on(async {
        let Some(other) = good_run(journal, run, Duration::MAX).await? else { return Ok(None) };
        let message = journal.message(run.id.clone()).await?;
        let other_message = journal.message(other.id.clone()).await?;
        anyhow::Ok(Some(compare((run, message.as_ref()), (&other, other_message.as_ref()))))
    })??)
}

fn show(config: &Config, remote: &Remote, args: &ShowArgs) -> Result<u8, Failure> {
    let run = find(config, remote, &args.id)?;
    if args.json {
        print(&json(&run))?;
        return Ok(DONE);
    }
    let mut table = Table::new(&["run", run.id.as_str()]);
    let mut line = |name: &str, value: String| table.push(vec![name.to_owned(), value]);
    line("task", format!("{} ({})", run.task, run.kind));
    line("message", run.message_id.to_string());
    line("topic", run.topic.to_string());
    line("attempt", run.attempt.to_string());
    line("worker", run.worker.to_string());
    if let Some(of) = run.entry.again_of() {
        line("repeats", format!("run {of}"));
    }
    line("started", time(run.started_at_ms));
    line("took", took(&run));
    line("outcome", run.outcome.to_string());
    for (key, value) in &run.notes {
        line("note", format!("{key} = {value}"));
    }
    if run.kind == TaskKind::Component {
        line("memory", bytesize::ByteSize(run.usage.memory).to_string());
        line("calls", run.usage.host_calls.to_string());
    }
    for grant in &run.grants {
        line("granted", grant.clone());
    }
    for request in &run.usage.requests {
        line("called", request.clone());
    }
    for emitted in &run.emitted {
        line("sent", format!("{} to {}", emitted.id, emitted.topic));
    }
    if let Some(playbook) = &run.playbook {
        show_playbook(playbook, &mut table);
    }
    print(&table.render())?;
    print("\n")?;
    print_plain(&run.output.text)?;
    if run.output.dropped > 0 {
        print(&format!("\n… {} more bytes were not stored\n", run.output.dropped))?;
    }
    Ok(DONE)
}

/// Adds the lines of a playbook run: its results, and the sandbox layers that were applied.
fn show_playbook(playbook: &PlaybookReport, table: &mut Table) {
    let mut line = |name: &str, value: String| table.push(vec![name.to_owned(), value]);
    if let Some(results) = &playbook.results {
        for (host, counts) in &results.hosts {
            let HostResults { ok, changed, failed, unreachable, skipped, rescued, ignored } =
                counts;
            line(
                "host",
                format!(
                    "{host}: {ok} ok, {changed} changed, {failed} failed, {unreachable} unreachable, \
                     {skipped} skipped, {rescued} rescued, {ignored} ignored"
                ),
            );
        }
        for TaskFailure { host, task, action, message, is_unreachable } in &results.failures {
            let verb = if *is_unreachable { "unreachable" } else { "failed" };
            line(verb, format!("{host}: task `{task}` ({action}): {message}"));
        }
        for warning in &results.warnings {
            line("warning", warning.to_string());
        }
        if results.dropped > 0 {
            line("results", format!("{} more results were not stored", results.dropped));
        }
    } else {
        line("results", "none: Ansible reported no results".to_owned());
    }
    let start = playbook.cold.as_ref();
    line("start", start.map_or("warm".to_owned(), |reason| format!("cold ({reason})")));
    if playbook.killed > 0 {
        let count = match playbook.killed {
            1 => "1 process".to_owned(),
            count => format!("{count} processes"),
        };
        line("orphans", format!("{count} killed"));
    }
    for denial in playbook.denials() {
        line("denied", denial);
    }
    for LayerReport { layer, state, detail } in &playbook.layers {
        line("layer", format!("{layer} {}: {detail}", state.as_str()));
    }
}

fn json(run: &Run) -> String {
    serde_json::to_string(run).expect("a run contains only JSON types") + "\n"
}

fn took(run: &Run) -> String {
    match run.duration.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}
