//! What operators did.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::layout::{Tab, layout};
use super::problem::unreadable;
use super::words::{ago, hostile, number};
use crate::web::shared::Shared;
use crate::work::audit::Action;

/// The number of lines on the page.
const LIMIT: u32 = 200;

pub(super) async fn show(State(web): State<Arc<Shared>>) -> Response {
    let actions = match web.audit.list(None, LIMIT).await {
        Ok(actions) => actions,
        Err(error) => return unreadable(&error),
    };
    let content = html! {
        h1 { "Audit" }
        section #audit data-live aria-label="Actions" {
            @if actions.is_empty() { p { "Nobody has done anything on this host yet." } }
            @else {
                div .scroll tabindex="0" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "When" }
                                th scope="col" { "Who" }
                                th scope="col" { "Action" }
                                th scope="col" { "To what" }
                                th scope="col" .number { "Count" }
                            }
                        }
                        tbody {
                            @for Action { at_ms, who, action, target, count, .. } in &actions {
                                tr {
                                    td .nowrap { (ago(*at_ms)) }
                                    td .cut { (hostile(who)) }
                                    td { (action) }
                                    td .cut { (hostile(target)) }
                                    td .number { @match count { Some(count) => (number(*count)), None => "not known" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    layout("Audit", Tab::Audit, &content).into_response()
}
