//! The input of one run: the message and the limits that its task sets.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use loopabull_model::{Message, RunId};

/// Reads the value of a key from a task's state. The error is one clause.
pub type ReadState = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Option<Vec<u8>>, String>> + Send>>
        + Send
        + Sync,
>;

/// One message for one component, with the limits of this run.
#[derive(Clone)]
pub struct Call<'a> {
    pub message: &'a Message,
    pub run_id: RunId,
    /// Counted from 1.
    pub attempt: u32,
    /// The maximum wall-clock time of the run.
    pub timeout: Duration,
    /// The maximum size of all linear memories and tables together, in bytes.
    pub memory: u64,
    /// The maximum size of the captured output, in bytes; the rest is counted and dropped.
    pub output: u64,
    /// Reads the state of the task. It is called only if the manifest grants state.
    pub state: ReadState,
}
