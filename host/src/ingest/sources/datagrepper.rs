//! Catching up: what a bus sent while nobody listened is asked of its archive, datagrepper.
//!
//! PUB/SUB gives no second chance, so whenever a connection was made the time before is asked for, and
//! once more a little later, since an archive is late: with a fixed end, so that pages do not move, oldest
//! first, and from a little earlier, since what comes twice is recognised. Owns the time up to which
//! everything is here. Trust is that in the archive's TLS: it keeps no signatures, so what a policy gives
//! to certain signers is not taken from it. Before it on the path of a message: datagrepper's `/v2/search`
//! (fedora-infra/datagrepper, `app.py`); after it: [`Ingest`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Egress, EgressLimits, Timeouts, Trust};
use loopabull_fedmsg::trusted;
use loopabull_model::HttpGrant;
use loopabull_queue::Backoff;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::{self, Verify};
use crate::ingest::sources::fedmsg::Links;
use crate::ingest::{Ingest, now};
use crate::observe::metrics::Rejected;
use crate::observe::status::Link;

/// How many messages a page has: what datagrepper allows at the most; and fewer and fewer if such a page
/// cannot be read, so that one message holds up no others. Each is a part of the one before, so that a page
/// begins where one began.
const ROWS: [u32; 4] = [100, 50, 10, 1];
/// How often in a row a page cannot be read before a smaller one is asked for.
const TRIES: u32 = 3;
/// The label of what an archive has and cannot be read.
const UNREADABLE: &str = "archive-unreadable";
/// How long it rests after so many pages as are asked for in a row.
const REST: Duration = Duration::from_mins(1);
/// How often it is noted that everything up to now is here.
const TICK: Duration = Duration::from_secs(30);
/// How long all topics together may be that are asked for, in bytes: they stand in the URL.
const LONGEST_FILTER: usize = 4 << 10;
/// How often it is asked while one of several connections is away.
const PARTLY: Duration = Duration::from_mins(5);
/// Longer than anything waits.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);
/// How much earlier than a first note was made what was missed may be, in seconds.
const MAX_OVERLAP: i64 = 3600;
/// The label of what only certain signers may publish, and an archive cannot tell by whom it was.
const UNSIGNED: &str = "unsigned";
/// The largest page, in bytes: a hundred of the largest messages that were seen.
const LARGEST_PAGE: u64 = 64 << 20;

/// The archive, and how far it has been asked.
pub(super) struct Datagrepper {
    settings: config::Datagrepper,
    egress: Egress,
    file: PathBuf,
    progress: Progress,
    ingest: Arc<Ingest>,
    /// The connections that it stands in for.
    links: watch::Receiver<Links>,
    /// How long one of them may be dead before that is noticed.
    unnoticed: Duration,
    fedmsg: config::Fedmsg,
}

/// Why the archive cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatagrepperError {
    #[error("`{url}` is no address of a datagrepper: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
}

/// What is kept over a restart. Times are in seconds since 1970.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Progress {
    /// When it was started for the first time: before it nothing was missed.
    begun: Option<i64>,
    /// Up to when everything is here.
    complete_until: Option<i64>,
    /// What is being asked for.
    under_way: Option<Search>,
}

/// A time that is asked for, and the next page of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Search {
    start: i64,
    end: i64,
    page: u32,
    /// How many messages a page has.
    #[serde(default = "most_rows")]
    rows: u32,
    /// Which topics; all, if there is none. Other topics would have other pages.
    #[serde(default)]
    topics: Vec<String>,
}

/// A page, as `/v2/search` answers.
#[derive(Deserialize)]
struct Page {
    raw_messages: Vec<Box<RawValue>>,
    pages: u32,
    total: u64,
}

impl Datagrepper {
    /// Reads how far it has been asked.
    ///
    /// # Errors
    ///
    /// If the URL is none, or the file cannot be read.
    pub(super) fn open(
        settings: &config::Datagrepper,
        fedmsg: &config::Fedmsg,
        trust: Trust,
        state: &Path,
        ingest: Arc<Ingest>,
        links: watch::Receiver<Links>,
    ) -> Result<Self, DatagrepperError> {
        let bad = |reason: String| DatagrepperError::Url { url: settings.url.clone(), reason };
        let uri: Uri = settings.url.parse().map_err(|error| bad(format!("{error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(bad("it must be like https://apps.example.org/datagrepper".to_owned()));
        };
        let mut grant: HttpGrant =
            format!("{scheme}://{authority}").parse().map_err(|error| bad(format!("{error}")))?;
        grant.addresses.clone_from(&settings.addresses);
        let is_named = !grant.addresses.is_empty() || authority.host().parse::<IpAddr>().is_ok();
        if scheme == &http::uri::Scheme::HTTP && !is_named {
            return Err(bad(
                "anybody on the way could start tasks; use https, or name its addresses".to_owned(),
            ));
        }
        let limits = EgressLimits { response_body_bytes: LARGEST_PAGE, ..EgressLimits::default() };
        let egress = Egress::new(vec![grant], limits, trust);
        let file = state.join("datagrepper.json");
        let progress = Progress::read(&file)?;
        let unnoticed = fedmsg.endpoints.iter().map(unnoticed).max().unwrap_or_default();
        let (settings, fedmsg) = (settings.clone(), fedmsg.clone());
        Ok(Self { settings, egress, file, progress, ingest, links, unnoticed, fedmsg })
    }

    /// Returns the name under which it is a source.
    pub(super) fn name(&self) -> &str {
        &self.settings.url
    }

    /// Catches up whenever a connection was made, until the daemon stops.
    pub(super) async fn run(mut self) {
        let drain = self.ingest.shutdown.drain.clone();
        tokio::select! {
            // What is dropped is asked for again.
            () = self.work() => (),
            () = drain.cancelled() => (),
        }
    }

    async fn work(&mut self) {
        loop {
            // What is made while it asks is seen after.
            let made = self.links.borrow_and_update().made;
            self.catch_up().await;
            let again = Instant::now() + self.settings.overlap;
            if self.wait_for_connection(made, again).await == made {
                // An archive is late: what was sent last was not in it yet.
                self.catch_up().await;
                self.wait_for_connection(made, Instant::now() + FOR_EVER).await;
            }
        }
    }

    /// Waits until another connection was made, or until then; notes meanwhile that everything is here.
    /// Returns how many were made.
    async fn wait_for_connection(&mut self, made: u64, until: Instant) -> u64 {
        let mut partly = Instant::now() + PARTLY;
        loop {
            let links = *self.links.borrow_and_update();
            if links.made != made || Instant::now() >= until {
                return links.made;
            }
            let tick = tokio::time::sleep_until(until.min(Instant::now() + TICK));
            tokio::select! {
                changed = self.links.changed() => if changed.is_err() {
                    // The sources have ended, and so does the daemon.
                    std::future::pending::<()>().await;
                },
                () = tick => if self.links.borrow().all_stand {
                    let seconds = i64::try_from(self.unnoticed.as_secs()).unwrap_or(i64::MAX);
                    let until = self.progress.complete_until.max(Some(now().saturating_sub(seconds)));
                    self.progress.complete_until = until;
                    self.save();
                } else if Instant::now() >= partly {
                    // One is away for long; what the others miss must not wait for it.
                    partly = Instant::now() + PARTLY;
                    self.catch_up().await;
                },
            }
        }
    }

    /// Asks for all that is missing.
    async fn catch_up(&mut self) {
        if let Some(search) = self.progress.under_way.clone() {
            self.search(search).await;
        }
        let end = now();
        let begun = *self.progress.begun.get_or_insert_with(|| {
            // A file of a time before there was this line.
            self.progress.complete_until.map_or(end, |until| until - MAX_OVERLAP)
        });
        let until = *self.progress.complete_until.get_or_insert(end);
        let overlap = i64::try_from(self.settings.overlap.as_secs()).unwrap_or(MAX_OVERLAP);
        let start = (until - overlap).max(begun);
        let topics = self.topics();
        if start < end {
            self.search(Search { start, end, page: 1, rows: most_rows(), topics }).await;
        }
        self.save();
    }

    async fn search(&mut self, mut search: Search) {
        self.progress.under_way = Some(search.clone());
        self.save();
        let (mut in_a_row, mut backoff, mut unreadable) = (0, Backoff::default(), 0);
        loop {
            let page = match self.page(&search).await {
                Ok(page) => page,
                Err(error) => {
                    unreadable = if error.is::<Unreadable>() { unreadable + 1 } else { 0 };
                    let error = format!("{error:#}");
                    tracing::warn!("cannot ask `{}`: {error}", self.name());
                    self.ingest.board.set_link(self.name(), Link::Lost(error));
                    if unreadable >= TRIES {
                        unreadable = 0;
                        // Something in the page is wrong, and not the archive: it has others.
                        if self.page(&nothing()).await.is_ok() {
                            backoff.reset();
                            self.ask_for_less(&mut search);
                        }
                    }
                    backoff.pause(&self.ingest.shutdown.drain).await;
                    continue;
                }
            };
            backoff.reset();
            unreadable = 0;
            self.ingest.board.set_link(self.name(), Link::Connected);
            for message in &page.raw_messages {
                if !self.take(message).await {
                    // The daemon stops; the page is asked for again.
                    return std::future::pending().await;
                }
            }
            let Page { pages, total, .. } = page;
            tracing::info!("catching up: page {} of {pages}, {total} messages", search.page);
            if search.page >= pages {
                let until = self.progress.complete_until.max(Some(search.end));
                (self.progress.complete_until, self.progress.under_way) = (until, None);
                return self.save();
            }
            search.page += 1;
            self.progress.under_way = Some(search.clone());
            self.save();
            in_a_row += 1;
            if in_a_row >= self.settings.pages {
                tracing::warn!("catching up rests: {} pages were asked for in a row", in_a_row);
                tokio::time::sleep(REST).await;
                in_a_row = 0;
            }
        }
    }

    /// Asks for a part of a page that cannot be read, or passes over the one message that cannot.
    fn ask_for_less(&mut self, search: &mut Search) {
        match ROWS.into_iter().find(|rows| *rows < search.rows) {
            Some(rows) => {
                search.page = (search.page - 1) * (search.rows / rows) + 1;
                search.rows = rows;
            }
            None => {
                tracing::error!("message {} of `{}` is left out", search.page, self.name());
                self.ingest.count_rejection(&Rejected { reason: UNREADABLE });
                search.page += 1;
            }
        }
        self.progress.under_way = Some(search.clone());
        self.save();
    }

    /// Takes a message of a page, as if it had come on the bus. Tells whether it is settled.
    async fn take(&self, message: &RawValue) -> bool {
        self.ingest.board.receive(self.name());
        let message = trusted::from_recording(message.get().as_bytes());
        let topic = message.as_ref().ok().map(|message| message.topic.to_string());
        if let Some(topic) = topic {
            let is_subscribed = self.fedmsg.topics.iter().any(|prefix| topic.starts_with(prefix));
            let is_checked = self.fedmsg.verify == Verify::Required;
            let is_given = self.fedmsg.nitpicky || self.fedmsg.policy.contains_key(&topic);
            if !is_subscribed {
                return true;
            }
            if is_checked && is_given {
                self.ingest.count_rejection(&Rejected { reason: UNSIGNED });
                return true;
            }
        }
        self.ingest.take_archived(self.name(), message).await
    }

    async fn page(&self, search: &Search) -> anyhow::Result<Page> {
        let url = self.url(search);
        let request = Request::get(url).header("accept", "application/json");
        let request = request.body(Empty::<Bytes>::new()).context("the URL cannot be asked")?;
        let run = self.egress.begin_run();
        let (response, connection) = run.send(request, Timeouts::default()).await?;
        let (head, body) = response.into_parts();
        let (body, ()) = tokio::join!(body.collect(), connection);
        if !head.status.is_success() {
            bail!("it answers {}", head.status);
        }
        let body = body.context("the answer ends early").context(Unreadable)?.to_bytes();
        let page = serde_json::from_slice(&body);
        page.context("the answer is not that of a datagrepper").context(Unreadable)
    }

    fn url(&self, Search { start, end, page, rows, topics }: &Search) -> String {
        let base = self.settings.url.trim_end_matches('/');
        let mut url = format!(
            "{base}/v2/search?start={start}&end={end}&order=asc&rows_per_page={rows}&page={page}"
        );
        for topic in topics {
            url.push_str("&topic=");
            url.push_str(topic);
        }
        url
    }

    /// Returns the topics that are asked for. None means all: a pattern cannot be asked for.
    fn topics(&self) -> Vec<String> {
        let topics: Vec<_> = if self.settings.topics.is_empty() {
            let catalog = self.ingest.catalog.get();
            let topics = catalog.routes.literal_topics().unwrap_or_default();
            topics.into_iter().map(ToString::to_string).collect()
        } else {
            self.settings.topics.iter().map(ToString::to_string).collect()
        };
        let length: usize = topics.iter().map(|topic| topic.len() + "&topic=".len()).sum();
        if length > LONGEST_FILTER { Vec::new() } else { topics }
    }

    fn save(&self) {
        if let Err(error) = self.progress.write(&self.file) {
            tracing::error!("cannot write `{}`: {error}", self.file.display());
        }
    }
}

impl Progress {
    fn read(path: &Path) -> Result<Self, DatagrepperError> {
        let cannot = |source| DatagrepperError::Read { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| cannot(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(cannot(error)),
        }
    }

    /// Writes it beside the file, and puts it in its place.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

/// An answer came, and is not a page.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be read")]
struct Unreadable;

/// A time in which nothing was sent.
fn nothing() -> Search {
    Search { start: 0, end: 1, page: 1, rows: most_rows(), topics: Vec::new() }
}

fn most_rows() -> u32 {
    ROWS[0]
}

/// Returns how long a connection may be dead before that is noticed.
fn unnoticed(endpoint: &config::Endpoint) -> Duration {
    let heartbeat = endpoint.heartbeat.map(|interval| interval * 2);
    let ways = [heartbeat, endpoint.idle];
    ways.into_iter().flatten().min().unwrap_or(FOR_EVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_kept_and_what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datagrepper.json");
        assert_eq!(Progress::read(&path).unwrap(), Progress::default());
        let search = Search { start: 1, end: 2, page: 3, rows: 50, topics: vec!["a".into()] };
        let progress =
            Progress { begun: Some(0), complete_until: Some(1), under_way: Some(search) };
        progress.write(&path).unwrap();
        assert_eq!(Progress::read(&path).unwrap(), progress);
        fs::write(&path, "{").unwrap();
        // To begin anew would leave out what nobody has.
        assert!(Progress::read(&path).is_err());
    }

    #[test]
    fn a_dead_connection_is_noticed_by_whatever_is_sooner() {
        let endpoint = |heartbeat: Option<u64>, idle: Option<u64>| {
            let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
            let (heartbeat, idle) = (seconds(heartbeat), seconds(idle));
            unnoticed(&config::Endpoint { address: String::new(), heartbeat, idle }).as_secs()
        };
        assert_eq!(endpoint(Some(30), Some(600)), 60);
        assert_eq!(endpoint(None, Some(600)), 600);
        assert!(endpoint(None, None) > 86_400);
    }
}
