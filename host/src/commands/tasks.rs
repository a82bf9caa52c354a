//! The command `tasks` lists the tasks, and creates the crate of a new task.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use loopabull_model::{TaskName, Topic, TopicPattern, chain};
use loopabull_playbook::Playbooks;
use loopabull_wasm::ComponentRunner;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::{Discovery, Finding, Severity};

/// Files of a new task's crate, each with its path and text. In a path, `NAME` is the name of the
/// task, and `IDENT` is the name as a Rust identifier.
const TEMPLATE: [(&str, &str); 7] = [
    ("NAME/Cargo.toml", include_str!("../../../guest-sdk/template/Cargo.toml.in")),
    ("NAME/build.rs", include_str!("../../../guest-sdk/template/build.rs")),
    ("NAME/.gitignore", include_str!("../../../guest-sdk/template/.gitignore")),
    ("NAME/src/lib.rs", include_str!("../../../guest-sdk/template/src/lib.rs.in")),
    ("NAME/tests/IDENT.rs", include_str!("../../../guest-sdk/template/tests/task.rs.in")),
    (
        "NAME/tests/cases/first.json",
        include_str!("../../../guest-sdk/template/tests/cases/first.json.in"),
    ),
    ("NAME.toml", include_str!("../../../guest-sdk/template/manifest.toml.in")),
];

/// Names that a new task cannot have: Rust's keywords, and names that the template uses. The crate
/// of a new task contains a function with the name of the task.
const KEYWORDS: [&str; 42] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "fn", "for", "gen", "if", "impl", "in", "info", "let",
    "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self", "static", "struct",
    "super", "task", "test", "trait", "type", "use", "where", "while",
];

/// List the tasks, or create a new one
///
/// Without a subcommand, the tasks are listed.
#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    #[command(subcommand)]
    command: Option<TasksCommand>,
}

#[derive(Debug, Subcommand)]
enum TasksCommand {
    List(ListArgs),
    New(NewArgs),
}

/// List the tasks with their topics and grants, and the reasons why tasks are refused
///
/// Compiles the components and checks the playbooks with Ansible, which takes about a second for each
/// playbook.
#[derive(Debug, Args)]
struct ListArgs {}

/// Create a Rust crate for a new component
///
/// Writes the crate `NAME` and the manifest `NAME.toml` to the directory of components. The new crate
/// builds and passes its test.
///
/// Example: `loopabull-host tasks new flag-build --topic 'org.example.*.build.#'`
#[derive(Debug, Args)]
struct NewArgs {
    /// Name of the task: lower-case words joined by dashes, as for cargo packages
    name: String,
    /// Topic pattern of the task, for example `org.example.*.thing.#`
    #[arg(long, value_name = "PATTERN")]
    topic: String,
    /// Directory of the guest SDK [default: the nearest `guest-sdk` in or above the directory of
    /// components]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

pub(crate) fn run(config: &Config, args: &TasksArgs) -> Result<u8, Failure> {
    match &args.command {
        None | Some(TasksCommand::List(_)) => list(config),
        Some(TasksCommand::New(args)) => new(config, args),
    }
}

fn list(config: &Config) -> Result<u8, Failure> {
    state_dir::make(&config.state)?;
    let components = ComponentRunner::new(&config.components(1)?)?;
    let catalog = Catalog::load(config, &Discovery::read(config, None), &components, None);
    let unchecked = block_on(check_playbooks(config, &catalog))?;
    let mut table = Table::new(&["TASK", "KIND", "TOPICS", "GRANTS", "STATE"]);
    let mut is_well = true;
    for task in catalog.routes.tasks() {
        let topics: Vec<_> = task.patterns().iter().map(ToString::to_string).collect();
        let kinds = task.manifest.grants.kinds();
        let state = match (catalog.refused(&task.name), unchecked.get(&task.name)) {
            (Some(reason), _) => format!("refused: {reason}"),
            (None, Some(reason)) => format!("not checked: {reason}"),
            (None, None) => "loaded".to_owned(),
        };
        is_well &= state == "loaded";
        table.push(vec![
            task.name.to_string(),
            task.kind.to_string(),
            topics.join(" "),
            if kinds.is_empty() { "-".to_owned() } else { kinds.join(", ") },
            state,
        ]);
    }
    print_plain(&table.render())?;
    for Finding { severity, file, text } in &catalog.findings {
        is_well &= *severity == Severity::Note;
        let word = if *severity == Severity::Note { "note" } else { "problem" };
        print_plain(&format!("{word}: `{}`: {text}\n", file.display()))?;
    }
    Ok(if is_well { DONE } else { FAILED })
}

/// Checks the playbooks with Ansible. Returns the playbooks that could not be checked, and the reasons.
async fn check_playbooks(config: &Config, catalog: &Catalog) -> BTreeMap<TaskName, String> {
    let mut unchecked = BTreeMap::new();
    if catalog.playbooks().next().is_none() {
        return unchecked;
    }
    let opened = Playbooks::open(&config.playbook_settings("tries"));
    for (task, playbook) in catalog.playbooks() {
        let checked = match &opened {
            Ok(playbooks) => playbook.check(task, playbooks).await.map_err(chain),
            Err(error) => Err(chain(error)),
        };
        if let Err(reason) = checked {
            unchecked.insert(task.name.clone(), reason);
        }
    }
    unchecked
}

fn new(config: &Config, args: &NewArgs) -> Result<u8, Failure> {
    let name = package_name(&args.name)?;
    let pattern =
        TopicPattern::try_from(args.topic.as_str()).context("the topic pattern is invalid")?;
    let sdk = sdk(&config.tasks, args.sdk.as_deref())?;
    let sdk = sdk.to_str().with_context(|| format!("path `{}` is not UTF-8", sdk.display()))?;
    let ident = name.as_str().replace('-', "_");
    let title = format!("Handles messages of {pattern}");
    let example = example(&pattern)?;
    let fill = |text: &str, topic: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{ident}}", &ident)
            .replace("{{topic}}", topic)
            .replace("{{sdk}}", sdk)
            .replace("{{title}}", &title)
    };
    let path = |file: &str| {
        config.tasks.join(file.replace("NAME", name.as_str()).replace("IDENT", &ident))
    };
    if let Some((file, _)) = TEMPLATE.iter().find(|(file, _)| path(file).exists()) {
        return Err(anyhow!("`{}` already exists", path(file).display()).into());
    }
    for (file, text) in TEMPLATE {
        // The manifest contains the pattern. The tests need a topic that matches the pattern.
        let is_manifest = file == "NAME.toml";
        let topic = if is_manifest { pattern.to_string() } else { example.to_string() };
        write(&path(file), &fill(text, &topic))?;
    }
    let folder = config.tasks.join(name.as_str());
    let (folder, tasks) = (folder.display(), config.tasks.display());
    print(&format!(
        "created `{folder}` and `{tasks}/{name}.toml`; build the task with\n\n  \
         cd {folder}\n  \
         cargo test\n  \
         cargo build --release --target wasm32-wasip2\n  \
         cp target/wasm32-wasip2/release/{ident}.wasm ../{name}.wasm\n\n\
         and try it with `loopabull-host test {name} MESSAGE.json`. A running daemon loads it automatically.\n"
    ))?;
    Ok(DONE)
}

/// Returns the name of a task if it is also a valid package name in cargo.
fn package_name(name: &str) -> Result<TaskName, Failure> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_word)
        && !name.ends_with('-')
        && name.len() <= 64;
    if KEYWORDS.contains(&name) {
        return Err(anyhow!("`{name}` cannot be used as the name of a Rust function").into());
    }
    if !fits {
        let error = anyhow!("`{}` is not a valid name for a crate", name.escape_debug());
        return Err(Failure::with_hint(
            error,
            "use lower-case words joined by dashes, for example `flag-build`",
        ));
    }
    Ok(TaskName::try_from(name)?)
}

/// Returns a topic that matches the pattern.
fn example(pattern: &TopicPattern) -> Result<Topic, Failure> {
    let text = pattern.to_string();
    let words =
        text.split('.').map(|word| if matches!(word, "*" | "#") { "example" } else { word });
    Ok(Topic::try_from(words.collect::<Vec<_>>().join("."))?)
}

/// Returns the directory of the guest SDK: `named` if it is given, otherwise the nearest
/// `guest-sdk`.
fn sdk(tasks: &Path, named: Option<&Path>) -> Result<PathBuf, Failure> {
    let is_sdk = |folder: &Path| folder.join("Cargo.toml").is_file() && folder.join("src").is_dir();
    let found = match named {
        Some(folder) => Some(folder.to_owned()).filter(|folder| is_sdk(folder)),
        None => {
            let tasks = fs::canonicalize(tasks).unwrap_or_else(|_| tasks.to_owned());
            tasks.ancestors().map(|folder| folder.join("guest-sdk")).find(|folder| is_sdk(folder))
        }
    };
    let found = found.and_then(|folder| fs::canonicalize(folder).ok());
    found.ok_or_else(|| {
        let error = match named {
            Some(folder) => anyhow!("`{}` does not contain the guest SDK", folder.display()),
            None => anyhow!("found no directory `guest-sdk` in or above `{}`", tasks.display()),
        };
        Failure::with_hint(error, "name the directory `guest-sdk` of loopabull-host with `--sdk`")
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(cannot)?;
    }
    fs::write(path, text).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_topic_matches_the_pattern() {
        let topic = |pattern: &str| {
            let pattern = TopicPattern::try_from(pattern).unwrap();
            let topic = example(&pattern).unwrap_or_else(|_| panic!("{pattern}"));
            assert!(pattern.matches(&topic));
            topic.to_string()
        };
        assert_eq!(topic("org.*.thing.#"), "org.example.thing.example");
        assert_eq!(topic("a.b"), "a.b");
    }

    #[test]
    fn only_valid_package_names_are_accepted() {
        for name in ["", "fn", "test", "A", "1a", "a_b", "a-", "../x", "a b"] {
            assert!(package_name(name).is_err(), "{name}");
        }
        assert!(package_name("flag-build2").is_ok());
    }
}
