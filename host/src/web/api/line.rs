//! The line of an action in the audit log.

use loopabull_model::chain;

use crate::web::operator::Operator;
use crate::web::shared::Shared;
use crate::work::audit::Begun;

/// What is said of an action that is not recorded.
const NOT_WRITTEN: &str = ", but the audit log cannot be written";

/// The line of an action that has begun. It is there even if the daemon ends meanwhile.
pub(super) struct Line {
    /// `None` if the audit log cannot be written.
    begun: Option<Begun>,
}

impl Line {
    /// Adds the line. If that fails, the action goes on: an operator must be able to act while the disk is full.
    pub(super) async fn begin(
        web: &Shared,
        operator: &Operator,
        action: &'static str,
        target: &str,
    ) -> Self {
        let begun = web.audit.begin(&operator.0, action, target).await;
        let begun = begun.inspect_err(|error| {
            let (error, who) = (chain(error), &operator.0);
            tracing::error!("cannot record `{action} {target}` of {who} in the audit log: {error}");
        });
        Self { begun: begun.ok() }
    }

    /// Adds how many things the action changed. Returns what is to be said if the action is not in the audit log.
    pub(super) async fn finish(self, web: &Shared, count: u64) -> &'static str {
        let finished = match self.begun {
            Some(begun) => web.audit.finish(&begun, count).await,
            None => return NOT_WRITTEN,
        };
        if let Err(error) = &finished {
            tracing::error!("cannot complete a line of the audit log: {}", chain(error));
        }
        if finished.is_ok() { "" } else { NOT_WRITTEN }
    }
}
