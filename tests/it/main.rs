//! Whole-daemon tests, one for each promise to the operator. They start the real executable, a
//! real RabbitMQ, the real `ansible-playbook` and the real Python fedmsg; `cargo xtask test`
//! installs what they need.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::disallowed_methods, reason = "tests start the programs they test")]

mod bed;
mod command_line;
mod drain;
mod examples;
mod failing_tasks;
mod garbage;
mod hostile_messages;
mod kill;
mod main_road;
mod tidy;
