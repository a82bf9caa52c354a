//! `tasks`: what is loaded, and a crate for a new one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use loopabull_model::{TaskName, Topic, TopicPattern};
use loopabull_wasm::ComponentRunner;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::table::Table;
use crate::commands::{print, print_plain};
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tasks::catalog::Catalog;
use crate::tasks::discovery::Listing;

/// The files of a new task's crate: where each goes, and its text. What is `NAME` or `IDENT` there is
/// the task's name.
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

/// Names that a function in the crate cannot have: Rust's words, and what the template uses.
const KEYWORDS: [&str; 42] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "fn", "for", "gen", "if", "impl", "in", "info", "let",
    "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "self", "static", "struct",
    "super", "task", "test", "trait", "type", "use", "where", "while",
];

/// List the tasks, or make the crate of a new one
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

/// List the tasks, with what each is granted and why one is refused
#[derive(Debug, Args)]
struct ListArgs {}

/// Make the crate of a new component: it builds, passes its test and runs
///
/// Writes the crate `NAME` and the manifest `NAME.toml` into the directory of tasks.
#[derive(Debug, Args)]
struct NewArgs {
    /// The task's name: lower-case words joined by dashes, as cargo has them
    name: String,
    /// The topics that it wants, for example `org.example.*.thing.#`
    #[arg(long, value_name = "PATTERN")]
    topic: String,
    /// Where the guest SDK is [default: `guest-sdk` beside the directory of tasks, or above it]
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
    let catalog = Catalog::load(config, &Listing::read(config), &components, None);
    let mut table = Table::new(&["TASK", "KIND", "TOPICS", "GRANTS", "STATE"]);
    let mut is_well = true;
    for task in catalog.routes.tasks() {
        let topics: Vec<_> = task.patterns().iter().map(ToString::to_string).collect();
        let kinds = task.manifest.grants.kinds();
        let refused = catalog.refused(&task.name);
        is_well &= refused.is_none();
        table.push(vec![
            task.name.to_string(),
            task.kind.to_string(),
            topics.join(" "),
            if kinds.is_empty() { "-".to_owned() } else { kinds.join(", ") },
            refused.map_or("loaded".to_owned(), |why| format!("refused: {why}")),
        ]);
    }
    print_plain(&table.render())?;
    Ok(if is_well { DONE } else { FAILED })
}

fn new(config: &Config, args: &NewArgs) -> Result<u8, Failure> {
    let name = package_name(&args.name)?;
    let pattern = TopicPattern::try_from(args.topic.as_str()).context("that is no pattern")?;
    let sdk = sdk(&config.tasks, args.sdk.as_deref())?;
    let sdk = sdk.to_str().with_context(|| format!("`{}` is not UTF-8", sdk.display()))?;
    let ident = name.as_str().replace('-', "_");
    let title = format!("Works the messages of {pattern}");
    let example = example(&pattern)?;
    let fill = |text: &str, topic: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{ident}}", &ident)
            .replace("{{topic}}", topic)
            .replace("{{sdk}}", sdk)
            .replace("{{title}}", &title)
    };
    let place = |file: &str| {
        config.tasks.join(file.replace("NAME", name.as_str()).replace("IDENT", &ident))
    };
    if let Some((file, _)) = TEMPLATE.iter().find(|(file, _)| place(file).exists()) {
        return Err(anyhow!("`{}` is there already", place(file).display()).into());
    }
    for (file, text) in TEMPLATE {
        // A manifest has the pattern, the tests a topic that it takes.
        let is_manifest = file == "NAME.toml";
        let topic = if is_manifest { pattern.to_string() } else { example.to_string() };
        write(&place(file), &fill(text, &topic))?;
    }
    let folder = config.tasks.join(name.as_str());
    let (folder, tasks) = (folder.display(), config.tasks.display());
    print(&format!(
        "made `{folder}` and `{tasks}/{name}.toml`; now\n\n  \
         cd {folder}\n  \
         cargo test\n  \
         cargo build --release --target wasm32-wasip2\n  \
         cp target/wasm32-wasip2/release/{ident}.wasm ../{name}.wasm\n\n\
         and see `loopabull-host test {name} MESSAGE.json`; a daemon that runs takes it by itself.\n"
    ))?;
    Ok(DONE)
}

/// A name that cargo takes too.
fn package_name(name: &str) -> Result<TaskName, Failure> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_word)
        && !name.ends_with('-')
        && name.len() <= 64;
    if KEYWORDS.contains(&name) {
        return Err(anyhow!("`{name}` is a word of Rust, and no name for a function").into());
    }
    if !fits {
        let error = anyhow!("`{}` is no name for a crate", name.escape_debug());
        return Err(Failure::with_hint(error, "lower-case words joined by dashes: `flag-build`"));
    }
    Ok(TaskName::try_from(name)?)
}

/// Returns a topic that the pattern takes.
fn example(pattern: &TopicPattern) -> Result<Topic, Failure> {
    let text = pattern.to_string();
    let words =
        text.split('.').map(|word| if matches!(word, "*" | "#") { "example" } else { word });
    Ok(Topic::try_from(words.collect::<Vec<_>>().join("."))?)
}

/// Returns where the SDK is.
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
            Some(folder) => anyhow!("there is no guest SDK in `{}`", folder.display()),
            None => anyhow!("there is no `guest-sdk` beside `{}` or above it", tasks.display()),
        };
        Failure::with_hint(error, "name the folder `guest-sdk` of loopabull-host with `--sdk`")
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
    fn a_topic_of_the_pattern_stands_in_the_tests() {
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
    fn a_name_is_one_that_cargo_takes() {
        for name in ["", "fn", "test", "A", "1a", "a_b", "a-", "../x", "a b"] {
            assert!(package_name(name).is_err(), "{name}");
        }
        assert!(package_name("flag-build2").is_ok());
    }
}
