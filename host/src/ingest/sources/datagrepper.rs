//! The datagrepper source fetches missed messages from datagrepper, the archive of a fedmsg bus.
//!
//! A fedmsg publisher does not send a message again if a subscriber missed it. So each time this
//! host has connected to a fedmsg endpoint, this source catches up: it searches the archive for
//! messages that the host may have missed. The archive stores a message a little later than the bus
//! delivers it, so the catch-up is repeated once, after the configured time `overlap`.
//!
//! A search begins `overlap` before the time up to which no message is missing. Deduplication drops
//! the messages that were already received. A search has a fixed end and returns the oldest
//! messages first, so that new messages do not change its pages.
//!
//! The archive stores no signatures. The source trusts the TLS connection to the archive instead,
//! and rejects a message if the routing policy reserves its topic for certain signers. The source
//! requests datagrepper's `/v2/search` (fedora-infra/datagrepper, `app.py`), and passes the
//! messages to the ingest path.

mod client;
mod progress;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use loopabull_egress::TlsRoots;
use loopabull_fedmsg::trusted;
use loopabull_model::chain;
use loopabull_queue::Backoff;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{self, Config, Verify};
use crate::ingest::path::IngestPath;
use crate::ingest::quarantine::Stopping;
use crate::ingest::shared::Shared;
use crate::ingest::sources::datagrepper::client::{Client, Page, UrlError};
use crate::ingest::sources::datagrepper::progress::{Progress, ProgressError, Search};
use crate::ingest::sources::datagrepper::schedule::{Due, Schedule};
use crate::ingest::sources::fedmsg::Connections;
use crate::observe::activity::{Activity, Link};
use crate::observe::metrics::{BySource, Metrics};
use crate::tasks::catalog::CurrentCatalog;

/// Number of consecutive unreadable responses after which smaller pages are requested.
const MAX_UNREADABLE: u32 = 3;
/// Pause after the configured number of consecutive pages.
const PAGES_PAUSE: Duration = Duration::from_mins(1);
/// Maximum total size of the topics in the URL, in bytes. If the topics are larger, all topics are
/// requested.
const MAX_FILTER_BYTES: usize = 4 << 10;
/// Metrics label of a message that cannot be read from the archive.
const UNREADABLE: &str = "archive-unreadable";
/// Metrics label of a message whose topic is reserved for certain signers.
const UNSIGNED: &str = "unsigned";

/// The archive as a source.
pub(super) struct Datagrepper {
    settings: config::Datagrepper,
    fedmsg: config::Fedmsg,
    client: Client,
    file: PathBuf,
    progress: Progress,
    schedule: Schedule,
    catalog: Arc<CurrentCatalog>,
    path: Arc<IngestPath>,
    activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
}

/// The reason why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatagrepperError {
    #[error("cannot use the datagrepper URL `{url}`")]
    Url { url: String, source: UrlError },
    #[error(transparent)]
    Progress(#[from] ProgressError),
}

impl DatagrepperError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url { source, .. } => Some(source.hint()),
            Self::Progress(_) => None,
        }
    }
}

impl Datagrepper {
    /// Creates the source, and reads the progress that earlier daemons saved.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, or the progress file cannot be read.
    pub(super) fn open(
        settings: &config::Datagrepper,
        config: &Config,
        tls_roots: TlsRoots,
        path: &Arc<IngestPath>,
        connections: watch::Receiver<Connections>,
        shared: &Shared,
    ) -> Result<Self, DatagrepperError> {
        let client = Client::new(&settings.url, &settings.addresses, tls_roots)
            .map_err(|source| DatagrepperError::Url { url: settings.url.clone(), source })?;
        let file = config.state.join("datagrepper.json");
        let progress = Progress::read(&file)?;
        let schedule = Schedule::new(connections, settings.overlap);
        let (settings, fedmsg, path) = (settings.clone(), config.fedmsg.clone(), Arc::clone(path));
        let Shared { catalog, activity, metrics, shutdown, .. } = shared.clone();
        let drain = shutdown.drain;
        Ok(Self {
            settings,
            fedmsg,
            client,
            file,
            progress,
            schedule,
            catalog,
            path,
            activity,
            metrics,
            drain,
        })
    }

    /// Returns the name of this source.
    pub(super) fn name(&self) -> &str {
        &self.settings.url
    }

    /// Catches up after each connect, until the daemon drains.
    pub(super) async fn run(mut self) {
        let drain = self.drain.clone();
        tokio::select! {
            // Dropping a page in progress is safe, because the next daemon requests the page again.
            Stopping = self.follow() => (),
            () = drain.cancelled() => (),
        }
    }

    async fn follow(&mut self) -> Stopping {
        loop {
            match self.schedule.next().await {
                Due::CatchUp => {
                    if let Err(stopping) = self.catch_up().await {
                        return stopping;
                    }
                }
                Due::AllConnected => {
                    let undetected = schedule::undetected(&self.fedmsg.endpoints);
                    let until =
                        clock::now_seconds().saturating_sub(clock::whole_seconds(undetected));
                    self.progress.complete(until);
                    self.save();
                }
            }
        }
    }

    /// Searches the archive for missed messages. First finishes the search that is in progress, if
    /// there is one.
    async fn catch_up(&mut self) -> Result<(), Stopping> {
        if let Some(search) = self.progress.under_way.clone() {
            self.search(search).await?;
        }
        let overlap = clock::whole_seconds(self.settings.overlap);
        let topics = self.topics();
        if let Some(search) = self.progress.next_search(clock::now_seconds(), overlap, topics) {
            self.search(search).await?;
        }
        self.save();
        Ok(())
    }

    async fn search(&mut self, mut search: Search) -> Result<(), Stopping> {
        self.progress.under_way = Some(search.clone());
        self.save();
        let (mut consecutive, mut backoff, mut unreadable) = (0, Backoff::default(), 0);
        loop {
            let page = match self.client.page(&search).await {
                Ok(page) => page,
                Err(error) => {
                    unreadable = if error.is_unreadable() { unreadable + 1 } else { 0 };
                    let error = chain(error);
                    tracing::warn!("cannot search `{}`: {error}; retrying", self.name());
                    self.activity.set_link(self.name(), Link::Lost(error));
                    if unreadable >= MAX_UNREADABLE {
                        unreadable = 0;
                        // If another search succeeds, the problem is in this page.
                        if self.client.page(&Search::of_nothing()).await.is_ok() {
                            backoff.reset();
                            self.shrink_or_skip(&mut search);
                        }
                    }
                    backoff.pause(&self.drain).await;
                    continue;
                }
            };
            backoff.reset();
            unreadable = 0;
            self.activity.set_link(self.name(), Link::Connected);
            let Page { raw_messages, pages, total } = page;
            for message in &raw_messages {
                self.accept(message).await?;
            }
            tracing::info!("catch-up: page {} of {pages}, {total} messages in total", search.page);
            if search.page >= pages {
                self.progress.complete(search.end);
                self.progress.under_way = None;
                self.save();
                return Ok(());
            }
            search.page += 1;
            self.progress.under_way = Some(search.clone());
            self.save();
            consecutive += 1;
            if consecutive >= self.settings.pages {
                tracing::warn!("pausing the catch-up for a minute after {consecutive} pages");
                tokio::time::sleep(PAGES_PAUSE).await;
                consecutive = 0;
            }
        }
    }

    /// Requests smaller pages in place of an unreadable page. If the page has only one message,
    /// skips that message.
    fn shrink_or_skip(&mut self, search: &mut Search) {
        if !search.shrink() {
            tracing::error!("skipped unreadable message {} of `{}`", search.page, self.name());
            self.path.count_rejection(UNREADABLE);
            search.page += 1;
        }
        self.progress.under_way = Some(search.clone());
        self.save();
    }

    /// Accepts a message of a page like a message from the bus.
    async fn accept(&self, message: &RawValue) -> Result<(), Stopping> {
        self.activity.receive(self.name());
        let message = trusted::from_recording(message.get().as_bytes());
        let topic = message.as_ref().ok().map(|message| message.topic.to_string());
        if let Some(topic) = &topic {
            let is_subscribed = self.fedmsg.topics.iter().any(|prefix| topic.starts_with(prefix));
            let is_checked = self.fedmsg.verify == Verify::Required;
            let is_reserved = self.fedmsg.nitpicky || self.fedmsg.policy.contains_key(topic);
            if !is_subscribed {
                return Ok(());
            }
            if is_checked && is_reserved {
                self.path.count_rejection(UNSIGNED);
                let id = message.as_ref().ok().map(|message| message.id.as_str());
                let reason = "the archive has no signature, which this topic needs";
                self.path.note_rejected(self.name(), id, Some(topic), reason);
                return Ok(());
            }
        }
        self.metrics.envelopes.get_or_create(&BySource { source: "datagrepper" }).inc();
        match message {
            Ok(message) => self.path.accept_kept(self.name(), &message).await,
            Err(rejection) => {
                self.path.reject(self.name(), None, None, &rejection);
                Ok(())
            }
        }
    }

    /// Returns the topics to search. An empty list means all topics. The list is empty if the
    /// topics are too long for a URL. It is also empty if the configuration lists no topics and a
    /// task has a topic pattern, because datagrepper cannot search for patterns.
    fn topics(&self) -> Vec<String> {
        let topics: Vec<_> = if self.settings.topics.is_empty() {
            let catalog = self.catalog.get();
            let topics = catalog.routes.literal_topics().unwrap_or_default();
            topics.into_iter().map(ToString::to_string).collect()
        } else {
            self.settings.topics.iter().map(ToString::to_string).collect()
        };
        let length: usize = topics.iter().map(|topic| topic.len() + "&topic=".len()).sum();
        if length > MAX_FILTER_BYTES { Vec::new() } else { topics }
    }

    fn save(&self) {
        if let Err(error) = self.progress.write(&self.file) {
            tracing::error!("cannot write the progress file `{}`: {error}", self.file.display());
        }
    }
}
