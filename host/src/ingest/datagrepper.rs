//! Catching up: what a bus sent while nobody listened is asked of its archive, datagrepper.
//!
//! PUB/SUB gives no second chance, so after each start and each reconnect the time between is asked for:
//! with a fixed end, so that pages do not move, oldest first, and from a little earlier, since what comes
//! twice is recognised. Owns the time up to which everything is here. Trust is that in the archive's TLS:
//! it keeps no signatures. Before it on the path of a message: datagrepper's `/v2/search`
//! (fedora-infra/datagrepper, `app.py`); after it: [`Ingest`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use loopabull_egress::{Egress, EgressLimits, Resolver, Timeouts, Trust};
use loopabull_fedmsg::envelope_of_recording;
use loopabull_model::HttpGrant;
use loopabull_queue::Backoff;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::board::Link;
use crate::config;
use crate::ingest::{Ingest, now};

/// How many messages a page has: what datagrepper allows at the most.
const ROWS: u32 = 100;
/// How long it rests after so many pages as are asked for in a row.
const REST: Duration = Duration::from_mins(1);
/// How often it is noted that everything up to now is here.
const TICK: Duration = Duration::from_secs(30);
/// How long all topics together may be that are asked for, in bytes: they stand in the URL.
const LONGEST_FILTER: usize = 4 << 10;
/// The largest page, in bytes: a hundred of the largest messages that were seen.
const LARGEST_PAGE: u64 = 64 << 20;

/// The archive, and how far it has been asked.
pub struct Datagrepper {
    settings: config::Datagrepper,
    egress: Egress,
    file: PathBuf,
    progress: Progress,
    ingest: Arc<Ingest>,
    /// Whether all sources that it stands in for are connected.
    connected: watch::Receiver<bool>,
}

/// Why the archive cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum DatagrepperError {
    #[error("`{url}` is no address of a datagrepper: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
}

/// What is kept over a restart. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Progress {
    /// Up to when everything is here; none before the first start.
    complete_until: Option<i64>,
    /// What is being asked for.
    under_way: Option<Search>,
}

/// A time that is asked for, and the next page of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Search {
    start: i64,
    end: i64,
    page: u32,
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
    pub fn open(
        settings: &config::Datagrepper,
        trust: Trust,
        state: &Path,
        ingest: Arc<Ingest>,
        connected: watch::Receiver<bool>,
    ) -> Result<Self, DatagrepperError> {
        let bad = |reason: String| DatagrepperError::Url { url: settings.url.clone(), reason };
        let uri: Uri = settings.url.parse().map_err(|error| bad(format!("{error}")))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(bad("it must be like https://apps.example.org/datagrepper".to_owned()));
        };
        let mut grant: HttpGrant =
            format!("{scheme}://{authority}").parse().map_err(|error| bad(format!("{error}")))?;
        grant.addresses.clone_from(&settings.addresses);
        let limits = EgressLimits { response_body_bytes: LARGEST_PAGE, ..EgressLimits::default() };
        let egress = Egress::new(vec![grant], limits, trust, Resolver::System);
        let file = state.join("datagrepper.json");
        let progress = Progress::read(&file)?;
        Ok(Self { settings: settings.clone(), egress, file, progress, ingest, connected })
    }

    /// Returns the name under which it is a source.
    pub fn name(&self) -> &str {
        &self.settings.url
    }

    /// Catches up at the start and after each reconnect, until the daemon stops.
    pub async fn run(mut self) {
        let drain = self.ingest.shutdown.drain.clone();
        loop {
            tokio::select! {
                // What is dropped is asked for again.
                () = self.catch_up() => (),
                () = drain.cancelled() => return,
            }
            if !self.wait_for_gap().await {
                return;
            }
        }
    }

    /// Waits until a connection was lost and stands again; notes meanwhile that everything is here. Tells
    /// whether the daemon goes on.
    async fn wait_for_gap(&mut self) -> bool {
        let drain = self.ingest.shutdown.drain.clone();
        let mut was_lost = !*self.connected.borrow_and_update();
        loop {
            let is_connected = *self.connected.borrow();
            if is_connected && was_lost {
                return true;
            }
            tokio::select! {
                () = drain.cancelled() => return false,
                changed = self.connected.changed() => {
                    if changed.is_err() {
                        drain.cancelled().await;
                        return false;
                    }
                    was_lost |= !*self.connected.borrow_and_update();
                }
                () = tokio::time::sleep(TICK), if is_connected => {
                    self.progress.complete_until = Some(now());
                    self.save();
                }
            }
        }
    }

    /// Asks for all that is missing.
    async fn catch_up(&mut self) {
        let end = now();
        let Some(until) = self.progress.complete_until else {
            // There is no time before the first start.
            self.progress.complete_until = Some(end);
            return self.save();
        };
        if let Some(search) = self.progress.under_way {
            self.search(search).await;
        }
        let overlap = i64::try_from(self.settings.overlap.as_secs()).unwrap_or_default();
        self.search(Search { start: until - overlap, end, page: 1 }).await;
        self.progress = Progress { complete_until: Some(end), under_way: None };
        self.save();
    }

    async fn search(&mut self, mut search: Search) {
        self.progress.under_way = Some(search);
        self.save();
        let (mut in_a_row, mut backoff) = (0, Backoff::default());
        loop {
            let page = match self.page(search).await {
                Ok(page) => page,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!("cannot ask `{}`: {error}", self.name());
                    self.ingest.board.set_link(self.name(), Link::Lost(error));
                    backoff.pause(&self.ingest.shutdown.drain).await;
                    continue;
                }
            };
            backoff.reset();
            self.ingest.board.set_link(self.name(), Link::Connected);
            for message in &page.raw_messages {
                self.ingest.board.receive(self.name());
                self.ingest.take_archived(envelope_of_recording(message.get().as_bytes())).await;
            }
            let Page { pages, total, .. } = page;
            tracing::info!("catching up: page {} of {pages}, {total} messages", search.page);
            if search.page >= pages {
                return;
            }
            search.page += 1;
            self.progress.under_way = Some(search);
            self.save();
            in_a_row += 1;
            if in_a_row >= self.settings.pages {
                tracing::warn!("catching up rests: {} pages were asked for in a row", in_a_row);
                tokio::time::sleep(REST).await;
                in_a_row = 0;
            }
        }
    }

    async fn page(&self, search: Search) -> anyhow::Result<Page> {
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
        let body = body.context("the answer ends early")?.to_bytes();
        serde_json::from_slice(&body).context("the answer is not that of a datagrepper")
    }

    fn url(&self, Search { start, end, page }: Search) -> String {
        let base = self.settings.url.trim_end_matches('/');
        let mut url = format!(
            "{base}/v2/search?start={start}&end={end}&order=asc&rows_per_page={ROWS}&page={page}"
        );
        for topic in self.topics() {
            url.push_str("&topic=");
            url.push_str(&topic);
        }
        url
    }

    /// Returns the topics that are asked for. None means all: a pattern cannot be asked for.
    fn topics(&self) -> Vec<String> {
        if !self.settings.topics.is_empty() {
            return self.settings.topics.iter().map(ToString::to_string).collect();
        }
        let catalog = self.ingest.runner.catalog();
        let topics = catalog.routes.literal_topics().unwrap_or_default();
        let topics: Vec<_> = topics.into_iter().map(ToString::to_string).collect();
        let length: usize = topics.iter().map(String::len).sum();
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
        match fs::read(path) {
            // What cannot be read is what nobody knows: it begins anew.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(DatagrepperError::Read { path: path.to_owned(), source }),
        }
    }

    /// Writes it beside the file, and puts it in its place.
    fn write(self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(&self)?)?;
        fs::rename(&beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_kept_and_what_is_none_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("datagrepper.json");
        assert_eq!(Progress::read(&path).unwrap(), Progress::default());
        let search = Search { start: 1, end: 2, page: 3 };
        let progress = Progress { complete_until: Some(1), under_way: Some(search) };
        progress.write(&path).unwrap();
        assert_eq!(Progress::read(&path).unwrap(), progress);
        fs::write(&path, "{").unwrap();
        assert_eq!(Progress::read(&path).unwrap(), Progress::default());
    }
}
