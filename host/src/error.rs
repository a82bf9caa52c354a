//! How an error is printed: in one line, with its sources.

/// Returns an error and its sources in one line, joined by `: `.
pub(crate) fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
