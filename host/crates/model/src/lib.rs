//! The data types of loopabull-host: messages, tasks and their manifests, the outcomes of attempts and the
//! settlements of deliveries.
//!
//! This crate does no I/O, reads no clock and needs no async runtime. All other crates of the host may use
//! it. It uses none of them.

mod ansible;
mod body;
mod breaker;
mod breaker_policy;
mod ceiling;
mod denied_file;
mod duration;
mod effects;
mod emission;
mod entry;
mod error_chain;
mod grants;
mod http_grant;
mod http_origin;
mod limits;
mod manifest;
mod mask;
mod message;
mod near_miss;
mod normalised_reason;
mod outcome;
mod output;
mod pattern;
mod pattern_tree;
mod pause;
mod queue_name;
mod reason;
mod results;
mod retry;
mod routes;
mod run;
mod settlement;
mod task;
mod task_kind;
mod topic;
mod usage;
mod variable;

pub use ansible::{AnsibleOptions, Become, NoHosts, Start};
pub use body::{Body, BodyError, MAX_DEPTH};
pub use breaker::{Breaker, BreakerChange};
pub use breaker_policy::BreakerPolicy;
pub use ceiling::Ceiling;
pub use denied_file::DeniedFile;
pub use effects::{Effects, StateChanges};
pub use emission::Emission;
pub use entry::{Entry, EntryId};
pub use error_chain::chain;
pub use grants::{Access, DirGrant, Grants, SecretSource};
pub use http_grant::{AddressBlock, HttpGrant, HttpGrantError};
pub use http_origin::{AuthorityError, HttpHost, HttpOrigin, HttpScheme};
pub use limits::Limits;
pub use manifest::{Manifest, ManifestError};
pub use mask::Mask;
pub use message::{Message, MessageId, MessageIdError};
pub use near_miss::NearMiss;
pub use normalised_reason::normalised_reason;
pub use outcome::{Counted, Exceeded, Outcome};
pub use output::{Capture, Output};
pub use pattern::{PatternError, TopicPattern};
pub use pause::{Pause, PausedBy, Target};
pub use queue_name::{QueueName, QueueNameError};
pub use reason::{Reason, escape_harmful, is_harmful};
pub use results::{HostResults, LayerReport, LayerState, PlaybookReport, Results, TaskFailure};
pub use retry::{JITTER, OnFailure, RetryPolicy};
pub use routes::Routes;
pub use run::{Attempt, Run, RunId};
pub use settlement::Settlement;
pub use task::{Task, TaskName, TaskNameError};
pub use task_kind::TaskKind;
pub use topic::{Topic, TopicError};
pub use usage::{Emitted, Usage};
pub use variable::{VariableName, VariableNameError, Variables};
