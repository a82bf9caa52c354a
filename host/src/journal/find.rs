//! Finds runs page by page, newest first, in a limited time.
//!
//! Each step reads a window of rows by an index and keeps those that match. A search for something rare in millions of runs
//! ends when its time is over, and says how far it came. So no search keeps a reader busy for long.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use loopabull_model::Run;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rows;
use super::search::{Comparison, Condition, Search};

/// The number of rows that the first step reads. Each further step reads twice as many, up to the maximum.
const FIRST_WINDOW: usize = 250;
const MAX_WINDOW: usize = 2000;

/// A part of the runs that a search finds.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Found {
    /// Newest first.
    pub runs: Vec<Run>,
    /// Where the next part begins, if there may be more.
    #[schema(value_type = Option<String>)]
    pub next: Option<Place>,
}

/// A place in the order of the runs: before a run, which need not exist any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// In milliseconds since 1970.
    pub started_at_ms: i64,
    row: i64,
}

/// The reason why a text is no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a place consists of two numbers, such as `1790000000000-17`")]
pub struct PlaceError;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.started_at_ms, self.row)
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        text.parse()
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (time, row) = text.split_once('-').ok_or(PlaceError)?;
        let number = |text: &str| text.parse().map_err(|_| PlaceError);
        Ok(Self { started_at_ms: number(time)?, row: number(row)? })
    }
}

/// The runs of one step: a query that reads no more of a row than the conditions need, and the values of its parameters. Its
/// columns are the time of the start, the row, and whether the conditions hold that SQL can decide.
struct Window {
    sql: String,
    values: Vec<Value>,
    /// The number of rows, if there are as many.
    size: usize,
}

/// Returns up to `limit` runs before a place, or the newest ones. Looks for them for about `time`.
pub(super) fn find(
    connection: &Connection,
    search: &Search,
    before: Option<Place>,
    limit: usize,
    time: Duration,
) -> rusqlite::Result<Found> {
    if limit == 0 {
        return Ok(Found { runs: Vec::new(), next: before });
    }
    if connection.prepare_cached("SELECT rowid FROM runs LIMIT 0").is_err() {
        return find_in_earlier(connection, search, limit);
    }
    let start = Instant::now();
    let (mut place, mut runs, mut size) = (before, Vec::new(), FIRST_WINDOW);
    loop {
        let window = Window::new(search, place, size);
        let candidates = window.read(connection)?;
        let is_last = candidates.len() < window.size;
        for (here, is_candidate) in candidates {
            place = Some(here);
            if !is_candidate {
                continue;
            }
            runs.extend(load(connection, search, here)?);
            // At least one candidate of each step is loaded, so that every call goes on.
            if runs.len() == limit || start.elapsed() > time {
                return Ok(Found { runs, next: place });
            }
        }
        if is_last {
            return Ok(Found { runs, next: None });
        }
        if start.elapsed() > time {
            return Ok(Found { runs, next: place });
        }
        size = (size * 2).min(MAX_WINDOW);
    }
}

/// Returns runs of a file that an earlier version of this program wrote, which a command leaves to the daemon that may still
/// run. Its runs have no rows to go on from (before version 7), so all are looked through.
fn find_in_earlier(
    connection: &Connection,
    search: &Search,
    limit: usize,
) -> rusqlite::Result<Found> {
    let mut window = Window { sql: String::new(), values: Vec::new(), size: 0 };
    let (bounds, conditions) = (window.bounds(search, None), window.conditions(search));
    window.sql = format!(
        "SELECT * FROM runs WHERE {bounds} AND {conditions} ORDER BY started_at_ms DESC, id DESC"
    );
    let mut statement = connection.prepare(&window.sql)?;
    let mut rows = statement.query(params_from_iter(&window.values))?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()?.filter(|_| runs.len() < limit) {
        runs.extend(matching(search, row)?);
    }
    Ok(Found { runs, next: None })
}

/// Returns the run in a row if it matches, or `None` if it does not or was deleted meanwhile.
fn load(connection: &Connection, search: &Search, place: Place) -> rusqlite::Result<Option<Run>> {
    let mut statement = connection.prepare_cached("SELECT * FROM runs WHERE rowid = ?1")?;
    let run = statement.query_row([place.row], |row| matching(search, row));
    run.optional().map(Option::flatten)
}

fn matching(search: &Search, row: &Row<'_>) -> rusqlite::Result<Option<Run>> {
    let run = rows::read(row)?;
    let message = if search.reads_message() { rows::stored_message(row)? } else { None };
    let body = message.as_ref().map(|message| message.body.as_str());
    Ok(Some(run).filter(|run| search.matches(run, body)))
}

impl Window {
    /// Returns the window before a place, with about this number of rows.
    fn new(search: &Search, before: Option<Place>, size: usize) -> Self {
        let mut window = Self { sql: String::new(), values: Vec::new(), size: 0 };
        let bounds = window.bounds(search, before);
        let conditions = window.conditions(search);
        // An index on one column serves a window in the order of time only for one value of the column, so that several
        // values need a window each. The newest rows of each contain the newest of all.
        let indexed = window.indexed(search);
        let size = size.div_ceil(indexed.len());
        window.size = size;
        let sources: Vec<String> = indexed
            .into_iter()
            .map(|source| {
                format!(
                    "SELECT * FROM (SELECT started_at_ms, rowid AS place, ({conditions}) FROM runs
                     WHERE {source} AND {bounds}
                     ORDER BY started_at_ms DESC, rowid DESC LIMIT {size})"
                )
            })
            .collect();
        window.sql = format!(
            "SELECT * FROM ({}) ORDER BY started_at_ms DESC, place DESC LIMIT {size}",
            sources.join(" UNION ALL ")
        );
        window
    }

    /// Reads the rows: the place of each, and whether the conditions hold that SQL can decide.
    fn read(&self, connection: &Connection) -> rusqlite::Result<Vec<(Place, bool)>> {
        let row = |row: &Row<'_>| {
            Ok((Place { started_at_ms: row.get(0)?, row: row.get(1)? }, row.get(2)?))
        };
        let mut statement = connection.prepare_cached(&self.sql)?;
        statement.query_map(params_from_iter(&self.values), row)?.collect()
    }

    /// Adds a value, and returns its parameter. The `+` keeps SQLite from planning the query anew for each value.
    fn value(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("+?{}", self.values.len())
    }

    /// Returns the condition on the time of the runs.
    fn bounds(&mut self, search: &Search, before: Option<Place>) -> String {
        let mut bounds = vec!["true".to_owned()];
        if let Some(Place { started_at_ms, row }) = before {
            let (time, row) = (self.value(started_at_ms), self.value(row));
            bounds.push(format!("(started_at_ms, rowid) < ({time}, {row})"));
        }
        for term in search.terms.iter().filter(|term| !term.is_negated) {
            match term.condition {
                Condition::After(time) => {
                    let time = self.value(time);
                    bounds.push(format!("started_at_ms >= {time}"));
                }
                Condition::Before(time) => {
                    let time = self.value(time);
                    bounds.push(format!("started_at_ms < {time}"));
                }
                _ => (),
            }
        }
        bounds.join(" AND ")
    }

    /// Returns the conditions of which each is served by an index: those of the rarest term. One of them must hold.
    fn indexed(&mut self, search: &Search) -> Vec<String> {
        let rank = |condition: &Condition| match condition {
            Condition::Run(_) => 0,
            Condition::Message(_) => 1,
            Condition::Outcome(names) if !names.contains(&"success") => 2,
            Condition::Task(_) => 3,
            Condition::Outcome(_) => 4,
            _ => 5,
        };
        let terms = search.terms.iter().filter(|term| !term.is_negated);
        let rarest = terms.map(|term| &term.condition).min_by_key(|condition| rank(condition));
        let (column, values): (_, Vec<String>) = match rarest {
            Some(Condition::Run(id)) => ("id", vec![id.clone()]),
            Some(Condition::Message(id)) => ("message_id", vec![id.clone()]),
            Some(Condition::Outcome(names)) => {
                ("outcome_name", names.iter().map(|&name| name.to_owned()).collect())
            }
            Some(Condition::Task(names)) => ("task", names.clone()),
            _ => return vec!["true".to_owned()],
        };
        values.into_iter().map(|value| format!("{column} = {}", self.value(value))).collect()
    }

    /// Returns the conditions that SQL decides.
    fn conditions(&mut self, search: &Search) -> String {
        let mut conditions = vec!["true".to_owned()];
        for term in &search.terms {
            // The bounds have these times already.
            let is_bound = matches!(term.condition, Condition::After(_) | Condition::Before(_));
            if is_bound && !term.is_negated {
                continue;
            }
            let Some(condition) = self.condition(&term.condition) else { continue };
            let not = if term.is_negated { "NOT " } else { "" };
            conditions.push(format!("{not}({condition})"));
        }
        conditions.join(" AND ")
    }

    fn condition(&mut self, condition: &Condition) -> Option<String> {
        Some(match condition {
            Condition::Task(names) => self.one_of("task", names.iter().map(String::as_str)),
            Condition::Outcome(names) => self.one_of("outcome_name", names.iter().copied()),
            Condition::After(time) => format!("started_at_ms >= {}", self.value(*time)),
            Condition::Before(time) => format!("started_at_ms < {}", self.value(*time)),
            Condition::Took(than) => self.compared("duration_us", *than),
            Condition::Attempt(than) => self.compared("attempt", *than),
            Condition::Worker(than) => self.compared("worker", *than),
            Condition::Kind(kind) => format!("kind = {}", self.value(rows::json(kind))),
            Condition::Message(id) => format!("message_id = {}", self.value(id.clone())),
            Condition::Run(id) => format!("id = {}", self.value(id.clone())),
            Condition::Topic(_) | Condition::Member(..) | Condition::Text(_) => return None,
        })
    }

    fn compared(&mut self, column: &str, Comparison { operator, number }: Comparison) -> String {
        // Numbers above the range of SQLite's are larger than any that is stored.
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        format!("{column} {operator} {}", self.value(number))
    }

    fn one_of<'a>(&mut self, column: &str, values: impl Iterator<Item = &'a str>) -> String {
        let values: Vec<_> = values.map(|value| self.value(value.to_owned())).collect();
        format!("{column} IN ({})", values.join(", "))
    }
}

/// Returns how SQLite reads the first part of a search.
#[cfg(test)]
pub(super) fn plan(connection: &Connection, search: &Search, before: Option<Place>) -> String {
    let window = Window::new(search, before, FIRST_WINDOW);
    let query = format!("EXPLAIN QUERY PLAN {}", window.sql);
    let mut statement = connection.prepare(&query).expect("the query is valid");
    let rows = statement.query_map(params_from_iter(&window.values), |row| row.get::<_, String>(3));
    let steps = rows.expect("a plan has steps").map(|step| step.expect("a step is text") + "\n");
    steps.collect()
}
