//! Whole-daemon tests, one for each promise to the operator. They start the real executable, a
//! real RabbitMQ, the real `ansible-playbook` and the real Python fedmsg; `cargo xtask test`
//! installs what they need.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![expect(clippy::disallowed_methods, reason = "tests start the programs they test")]
#![expect(clippy::print_stdout, reason = "tests print the verdict of the oracle")]

mod actions;
mod again;
mod alerts;
mod ansible_settings;
mod api;
mod archive;
mod auditor;
mod broker;
mod broker_faults;
mod browser;
mod cable;
mod cancel;
mod command_line;
mod compat;
mod datagrepper;
mod dead_letters;
mod disk_full;
mod doctor;
mod documents;
mod drain;
mod emit;
mod emit_kills;
mod escapes;
mod examples;
mod explain;
mod external;
mod failing_tasks;
mod fedora_messaging;
mod forged;
mod garbage;
mod host_faults;
mod hostile_messages;
mod injection;
mod installations;
mod kill;
mod machine;
mod main_road;
mod many_playbooks;
mod masks;
mod named_queues;
mod new_task;
mod night;
mod other_languages;
mod pages;
mod pauses;
mod plain_user;
mod playbook_grants;
mod power_loss;
mod probe;
mod publish;
mod real_plays;
mod reload;
mod retention;
mod several;
mod shortages;
mod signatures;
mod site;
mod soak;
mod sources;
mod spool;
mod ssh;
mod status;
mod tasks;
mod test_host;
mod upgrade;
mod variables;
mod warm;
