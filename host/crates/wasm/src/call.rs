//! The input of one run: the message, and the limits of the run.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Message, RunId};

/// Reads the value of a key from the state of a task. An error is one clause of text.
pub type ReadState = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, String>> + Send>>
        + Send
        + Sync,
>;

/// The input of one run: a message for a component, and the limits of the run.
#[derive(Clone)]
pub struct Call<'a> {
    pub message: &'a Message,
    pub run_id: RunId,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// Maximum wall-clock time of the run.
    pub timeout: Duration,
    /// Maximum size of all linear memories and tables together, in bytes.
    pub memory: u64,
    /// Maximum size of the output that is kept, in bytes. Further output is counted and dropped.
    pub output: u64,
    /// Function that reads the state of the task. Only runs with a grant for state call the function.
    pub state: ReadState,
}
