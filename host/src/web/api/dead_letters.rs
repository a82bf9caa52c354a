//! Dead letters: lists them, and carries out verdicts on them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use loopabull_model::{EntryId, QueueName, TaskName, TopicPattern};
use loopabull_queue::{DeadLetter, DeadLetterFilter, Verdict};
use serde::Deserialize;
use utoipa::IntoParams;

use super::actions::carry_out;
use super::extract::{Body, Parameters};
use super::line::Line;
use super::refused::Refused;
use crate::api::{Age, DeadLetterList, JudgeRequest, Judged, Number, Text, VerdictName};
use crate::web::operator::Operator;
use crate::web::shared::Shared;

/// The number of dead letters in a list, if the request names none.
const LIMIT: usize = 50;
/// The size of a part, in bytes, after which no further dead letter is added.
const MAX_SIZE: usize = 8 << 20;

/// Which dead letters, and how many. A dead letter must match every condition.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Selection {
    /// Only this dead letter.
    #[param(inline)]
    id: Option<Text<256>>,
    queue: Option<QueueName>,
    task: Option<TaskName>,
    /// Only those whose topic matches this pattern.
    topic: Option<TopicPattern>,
    /// A text that the reason contains.
    #[param(inline)]
    reason: Option<Text<1000>>,
    /// The reason, with `…` for numbers, ids, paths and quoted names, as the groups of failures have it.
    #[param(inline)]
    like: Option<Text<1000>>,
    /// Only dead letters that are at least this old, in milliseconds.
    #[param(inline)]
    older_than_ms: Option<Age>,
    /// The value of `next` in the part before. If dead letters are added or removed between two requests, some may be missing or
    /// listed twice.
    #[param(inline)]
    skip: Option<Number<0, 1_000_000_000>>,
    /// The maximum number of dead letters. A part is also limited to about 8 MiB.
    #[param(inline, default = 50)]
    limit: Option<Number<1, 100_000>>,
}

/// Dead letters, those of each queue oldest first
#[utoipa::path(
    get,
    path = "/dead-letters",
    params(Selection),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = DeadLetterList), Refused)
)]
pub(super) async fn list(
    State(web): State<Arc<Shared>>,
    Parameters(selection): Parameters<Selection>,
) -> Result<Json<DeadLetterList>, Refused> {
    let skip = selection.skip.map_or(0, |Number(skip)| skip);
    let limit = selection.limit.map_or(LIMIT, |Number(limit)| limit as usize);
    let filter = DeadLetterFilter {
        ids: selection.id.into_iter().map(|Text(id)| EntryId::new(id)).collect(),
        queue: selection.queue,
        task: selection.task,
        topic: selection.topic,
        reason: selection.reason.map(|Text(reason)| reason),
        like: selection.like.map(|Text(like)| like),
        older_than: selection.older_than_ms.map(|Number(age)| Duration::from_millis(age)),
    };
    let (mut list, mut size) = (DeadLetterList::default(), 0);
    let looked = visit(&web, filter.queue.as_ref(), |letter| {
        if filter.matches(letter) {
            list.matching += 1;
            if list.matching <= skip || list.next.is_some() {
                return Verdict::Keep;
            }
            if list.dead_letters.len() == limit || size >= MAX_SIZE {
                list.next = Some(list.matching - 1);
                return Verdict::Keep;
            }
            size += size_of(letter);
            list.dead_letters.push(letter.clone());
        }
        Verdict::Keep
    });
    looked.await?;
    Ok(Json(list))
}

/// Count, requeue or drop all dead letters that match every condition
#[utoipa::path(
    post,
    path = "/dead-letters",
    request_body = JudgeRequest,
    security(("operate" = [])),
    responses((status = 200, body = Judged), Refused)
)]
pub(super) async fn judge(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(request): Body<JudgeRequest>,
) -> Result<Json<Judged>, Refused> {
    let filter = DeadLetterFilter {
        ids: request.ids.into_iter().map(|Text(id)| EntryId::new(id)).collect(),
        queue: request.queue,
        task: request.task,
        topic: request.topic,
        reason: request.reason.map(|Text(reason)| reason).filter(|reason| !reason.is_empty()),
        like: request.like.map(|Text(like)| like),
        older_than: request.older_than_ms.map(|Number(age)| Duration::from_millis(age)),
    };
    if (filter == DeadLetterFilter::default()) != request.all {
        return Err(Refused::bad(
            "name at least one of `ids`, `queue`, `task`, `topic`, `reason`, `like` and `older_than_ms`, or else `all`",
        ));
    }
    carry_out(async move { carry_out_verdict(&web, &operator, request.verdict, &filter).await })
        .await
}

async fn carry_out_verdict(
    web: &Shared,
    operator: &Operator,
    name: VerdictName,
    filter: &DeadLetterFilter,
) -> Result<Judged, Refused> {
    let line = match name.action() {
        Some(action) => Some(Line::begin(web, operator, action, &filter.to_string()).await),
        None => None,
    };
    let (mut matching, mut unknown) = (0, filter.ids.clone());
    let looked = visit(web, filter.queue.as_ref(), |letter| {
        // Two dead letters can have the same id, because an entry is published again if the broker's confirm is lost. The
        // verdict applies to both.
        if !filter.matches(letter) {
            return Verdict::Keep;
        }
        matching += 1;
        unknown.retain(|id| *id != letter.id);
        name.verdict()
    });
    let changed = looked.await;
    // After an error, the number of those that matched is the most that can have been changed.
    let count = match (name, &changed) {
        (VerdictName::Requeue | VerdictName::Drop, Ok(count)) => *count,
        _ => matching,
    };
    let recorded = match line {
        Some(line) => line.finish(web, count).await,
        None => "",
    };
    changed?;
    Ok(Judged {
        count,
        said: name.say(count) + recorded,
        unknown_ids: unknown.iter().map(|id| id.as_str().to_owned()).collect(),
    })
}

/// Returns about how many bytes a dead letter has in a list.
fn size_of(letter: &DeadLetter) -> usize {
    let body = letter.message.as_ref().map_or(letter.body.len(), |m| m.body.as_str().len());
    body + letter.output.len() + 500
}

/// Calls `judge` for each dead letter of one queue or of all queues. Returns how many were changed.
async fn visit(
    web: &Shared,
    queue: Option<&QueueName>,
    mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
) -> Result<u64, Refused> {
    let queues = match queue {
        Some(queue) => std::slice::from_ref(queue),
        None => &web.names[..],
    };
    // While one look at the dead letters of RabbitMQ is in progress, another one would find none.
    let _looking = match web.queues.knows_whereabouts() {
        true => None,
        false => Some(web.looking_at_dead_letters.lock().await),
    };
    let (mut changed, mut seen) = (0, 0_u64);
    for queue in queues {
        let judge = |letter: &DeadLetter| {
            seen += 1;
            judge(letter)
        };
        match web.queues.judge_dead_letters(queue, judge).await {
            Ok(count) => changed += count,
            Err(error) if web.names.contains(queue) => return Err(Refused::ours(error)),
            // RabbitMQ has no such queue.
            Err(_) => (),
        }
    }
    // A queue that no task has any more may still have dead letters.
    if let Some(queue) = queue.filter(|queue| seen == 0 && !web.names.contains(queue)) {
        return Err(Refused::missing(format!("there is no queue `{queue}`")));
    }
    Ok(changed)
}
