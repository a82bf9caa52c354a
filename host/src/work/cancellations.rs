//! The runs in progress, which an operator can cancel one by one.

use std::collections::HashMap;

use loopabull_model::{MessageId, RunId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The runs in progress.
#[derive(Debug, Default)]
pub(crate) struct Cancellations(Mutex<HashMap<RunId, InProgress>>);

#[derive(Debug)]
struct InProgress {
    worker: u32,
    message: MessageId,
    cancel: CancellationToken,
    /// Who cancelled the run.
    by: Option<String>,
}

/// What became of a wish to cancel a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cancel {
    /// The run ends now.
    Begun,
    /// The run ends already, because this operator cancelled it.
    Before { by: String },
    /// No run in progress has this id.
    NotThere,
}

/// A run in progress, until this guard is dropped.
#[derive(Debug)]
pub(crate) struct Cancellable<'a> {
    runs: &'a Cancellations,
    pub(crate) id: RunId,
    /// Cancelled when the run is to end: by an operator, or because the daemon stops.
    pub(crate) cancel: CancellationToken,
}

impl Cancellations {
    /// Adds a run of a message that begins now, or waits for its turn. `stop` cancels it too.
    pub(crate) fn begin(
        &self,
        worker: u32,
        message: &MessageId,
        stop: &CancellationToken,
    ) -> Cancellable<'_> {
        let id = RunId::new(uuid::Uuid::now_v7().simple().to_string());
        let cancel = stop.child_token();
        let run = InProgress { worker, message: message.clone(), cancel: cancel.clone(), by: None };
        self.0.lock().insert(id.clone(), run);
        Cancellable { runs: self, id, cancel }
    }

    /// Cancels a run on behalf of an operator.
    pub(crate) fn cancel(&self, id: &RunId, who: &str) -> Cancel {
        match self.0.lock().get_mut(id) {
            None => Cancel::NotThere,
            Some(InProgress { by: Some(by), .. }) => Cancel::Before { by: by.clone() },
            Some(run) => {
                run.by = Some(who.to_owned());
                run.cancel.cancel();
                Cancel::Begun
            }
        }
    }

    /// Returns what [`Self::cancel`] would do.
    pub(crate) fn would_cancel(&self, id: &RunId) -> Cancel {
        match self.0.lock().get(id) {
            None => Cancel::NotThere,
            Some(InProgress { by: Some(by), .. }) => Cancel::Before { by: by.clone() },
            Some(_) => Cancel::Begun,
        }
    }

    /// Returns the run of a message that a worker has in progress.
    pub(crate) fn of_worker(&self, worker: u32, message: &str) -> Option<RunId> {
        let runs = self.0.lock();
        let is_it = |run: &InProgress| run.worker == worker && run.message.as_str() == message;
        runs.iter().find(|(_, run)| is_it(run)).map(|(id, _)| id.clone())
    }
}

impl Cancellable<'_> {
    /// The run has ended, so that nobody can cancel it any more. Returns who did before.
    pub(crate) fn end(&self) -> Option<String> {
        self.runs.0.lock().remove(&self.id)?.by
    }
}

impl Drop for Cancellable<'_> {
    fn drop(&mut self) {
        self.runs.0.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_cancelled_once_and_alone() {
        let (runs, stop) = (Cancellations::default(), CancellationToken::new());
        let message = MessageId::try_from("m").unwrap();
        let (first, second) = (runs.begin(1, &message, &stop), runs.begin(2, &message, &stop));
        let (one, other) = (first.id.clone(), second.id.clone());
        assert_eq!(runs.would_cancel(&one), Cancel::Begun);
        assert_eq!(runs.cancel(&one, "ann"), Cancel::Begun);
        let before = Cancel::Before { by: "ann".to_owned() };
        assert_eq!([runs.cancel(&one, "bob"), runs.would_cancel(&one)], [before.clone(), before]);
        assert!(first.cancel.is_cancelled() && !second.cancel.is_cancelled());
        assert_eq!(runs.of_worker(2, "m"), Some(other.clone()));
        stop.cancel();
        assert!(second.cancel.is_cancelled());
        assert_eq!(first.end().as_deref(), Some("ann"));
        assert_eq!(runs.cancel(&one, "bob"), Cancel::NotThere);
        assert_eq!(second.end(), None);
        assert_eq!(runs.cancel(&other, "ann"), Cancel::NotThere);
        assert_eq!(runs.of_worker(2, "m"), None);
    }
}
