//! Runs the Python loopabull 0.0.7 with a durable queue in RabbitMQ. Its default queue is not used, because
//! RabbitMQ deletes that queue when the connection ends.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use crate::command::command;

/// The setup of a Python loopabull.
pub(crate) struct PythonLoopabull<'a> {
    /// A Python that has loopabull.
    pub(crate) python: &'a Path,
    /// The folder of loopabull's files. It contains `playbooks/TOPIC.yml`.
    pub(crate) folder: &'a Path,
    /// The program that loopabull starts as `ansible-playbook`.
    pub(crate) ansible_playbook: &'a Path,
    /// The port of the broker on this machine.
    pub(crate) port: u16,
    pub(crate) vhost: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) queue: &'a str,
}

impl PythonLoopabull<'_> {
    /// Writes the configuration of loopabull.
    pub(crate) fn write_files(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("tmp"))?;
        fs::write(self.folder.join("ansible.cfg"), "")?;
        fs::write(self.folder.join("loopabull.yml"), self.configuration())
    }

    /// Returns the command of one worker process, which runs one message at a time.
    pub(crate) fn worker(&self) -> Command {
        let mut worker = command(self.python);
        worker.args(["-W", "ignore"]).arg(self.python.with_file_name("loopabull"));
        worker.arg(self.folder.join("loopabull.yml"));
        // For each message, a worker leaves a file of variables in `TMPDIR`. So `TMPDIR` is in the folder of
        // the round.
        worker.env("TMPDIR", self.folder.join("tmp"));
        worker
    }

    fn configuration(&self) -> String {
        let Self { port, vhost, topic, queue, .. } = self;
        let (folder, playbook) = (self.folder.display(), self.ansible_playbook.display());
        format!(
            "loglevel: info\n\
             ansible:\n\
             \x20 playbooks_dir: {folder}/playbooks\n\
             \x20 cfg_file_path: {folder}/ansible.cfg\n\
             \x20 playbook_cmd: {playbook}\n\
             routing_keys: [{topic}]\n\
             plugins:\n\
             \x20 looper:\n\
             \x20   name: fedmsgrabbitmq\n\
             \x20   credentials: {{username: guest, password: guest}}\n\
             \x20   rabbitmq: {{host: 127.0.0.1, port: {port}, virtual_host: {vhost}}}\n\
             \x20   routing_keys: [{topic}]\n\
             \x20   exchange: {{name: amq.topic}}\n\
             \x20   channel_queue:\n\
             \x20     {{name: {queue}, durable: true, exclusive: false, auto_delete: false}}\n\
             \x20 translator: {{name: rkname}}\n"
        )
    }
}
