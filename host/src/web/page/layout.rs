//! The frame of every page.

use maud::{DOCTYPE, Markup, html};

/// The part of the site to which a page belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tab {
    Overview,
    Runs,
    Messages,
    Failures,
    Tasks,
    Audit,
    None,
}

const TABS: [(Tab, &str, &str); 6] = [
    (Tab::Overview, "/", "Overview"),
    (Tab::Runs, "/runs", "Runs"),
    (Tab::Messages, "/messages", "Messages"),
    (Tab::Failures, "/failures", "Failures"),
    (Tab::Tasks, "/tasks", "Tasks"),
    (Tab::Audit, "/audit", "Audit"),
];

const KEYS: [(&str, &str); 10] = [
    ("/", "search"),
    ("j", "next row"),
    ("k", "previous row"),
    ("o", "open the row"),
    ("g o", "overview"),
    ("g r", "runs"),
    ("g m", "messages"),
    ("g f", "failures"),
    ("g t", "tasks"),
    ("g a", "audit"),
];

/// Returns a whole page.
pub(super) fn layout(title: &str, active: Tab, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · loopabull-host" }
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/icon.svg";
                script src="/script.js" defer {}
            }
            body {
                a .skip href="#content" { "Skip to the content" }
                header {
                    strong { "loopabull-host" }
                    nav aria-label="Main" {
                        @for (tab, path, name) in TABS {
                            a href=(path) aria-current=[(tab == active).then_some("page")] { (name) }
                        }
                    }
                    span #connection role="status" {}
                    button #help-button type="button" { "Keys " kbd { "?" } }
                }
                main #content { (content) }
                dialog #help aria-label="Keys" {
                    h2 { "Keys" }
                    dl {
                        @for (key, what) in KEYS {
                            dt { kbd { (key) } }
                            dd { (what) }
                        }
                    }
                    form method="dialog" { button { "Close" } }
                }
            }
        }
    }
}
