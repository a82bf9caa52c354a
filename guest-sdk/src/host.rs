//! What stands behind [`crate::log`], [`crate::context`] and [`crate::config`]: in a
//! component the host, natively the stand-in that [`crate::test`] prepares.
//!
//! Owns the choice between the two, so that no other module has to make it.

#[cfg(target_family = "wasm")]
pub(crate) use crate::bindings::loopabull::task::{config, context, log};

#[cfg(not(target_family = "wasm"))]
pub(crate) use stand_in::{config, context, log, run};

/// The host of native tests. Its functions have the signatures of the imports.
#[cfg(not(target_family = "wasm"))]
mod stand_in {
    use std::cell::RefCell;

    use crate::test::Host;

    thread_local! {
        static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
    }

    /// Runs `task` before `host`, and returns the host with what the task left there.
    pub(crate) fn run<R>(host: Host, task: impl FnOnce() -> R) -> (R, Host) {
        HOST.set(Some(host));
        let result = task();
        let host = HOST.take().expect("a task does not run another through `test`");
        (result, host)
    }

    /// Shows the host to `f`. A task called without `test` meets the defaults, and what
    /// it writes is dropped.
    fn with<R>(f: impl FnOnce(&mut Host) -> R) -> R {
        HOST.with_borrow_mut(|host| match host {
            Some(host) => f(host),
            None => f(&mut Host::default()),
        })
    }

    pub(crate) mod context {
        use super::with;

        pub(crate) fn run_id() -> String {
            with(|host| host.run_id.clone())
        }

        pub(crate) fn attempt() -> u32 {
            with(|host| host.attempt)
        }

        pub(crate) fn deadline_ms() -> u64 {
            with(|host| u64::try_from(host.deadline.as_millis()).unwrap_or(u64::MAX))
        }

        pub(crate) fn retry_after_ms(ms: u64) {
            with(|host| host.retry_after = Some(std::time::Duration::from_millis(ms)));
        }

        pub(crate) fn note(key: &str, value: &str) {
            with(|host| host.notes.push((key.to_owned(), value.to_owned())));
        }
    }

    pub(crate) mod log {
        use super::with;
        use crate::log::Level;
        use crate::test::Line;

        pub(crate) fn write(level: Level, text: &str, fields: &[(String, String)]) {
            with(|host| {
                host.log.push(Line { level, text: text.to_owned(), fields: fields.to_vec() });
            });
        }
    }

    pub(crate) mod config {
        use super::with;

        pub(crate) fn get(key: &str) -> Option<String> {
            with(|host| host.config.get(key).cloned())
        }
    }
}
