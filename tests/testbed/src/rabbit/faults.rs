//! The faults of a node: it dies, freezes, blocks its publishers or closes its connections.

use rustix::process::Signal;

use super::Rabbit;
use crate::process;

impl Rabbit {
    /// Kills the Erlang VM and its descendants with SIGKILL, and waits until they are gone. Its
    /// epmd keeps running.
    ///
    /// # Panics
    ///
    /// If another process started the node, because this one could not start it again.
    pub fn kill(&self) {
        assert!(self.keeper.is_some(), "this node serves other tests, too");
        process::kill_family(self.server());
    }

    /// Starts the node again with the same data and ports, and waits until it runs. A running node
    /// is killed first.
    ///
    /// # Panics
    ///
    /// If it does not start; the text has its log.
    pub fn restart(&self) {
        self.kill();
        self.keeper.as_ref().expect("`kill` checks it").start_server();
        self.wait_until_running();
    }

    /// Stops the Erlang VM with SIGSTOP: its connections stay open, and it does not answer.
    pub fn freeze(&self) {
        process::signal(self.server(), Signal::STOP);
        process::wait_until("the node to be stopped", || process::is_stopped(self.server()));
    }

    /// Continues a frozen node. The other nodes of a cluster consider it dead after some twelve
    /// seconds. Then it stays apart from them until [`Rabbit::stop_app`] and [`Rabbit::start_app`],
    /// or a restart.
    pub fn thaw(&self) {
        process::signal(self.server(), Signal::CONT);
        process::wait_until("the node to continue", || !process::is_stopped(self.server()));
    }

    /// Returns whether the Erlang VM runs: it is neither dead nor frozen.
    pub fn is_running(&self) -> bool {
        process::is_alive(self.server()) && !process::is_stopped(self.server())
    }

    /// Stops RabbitMQ. The Erlang VM keeps running.
    pub fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Starts RabbitMQ again after [`Rabbit::stop_app`], and waits until it runs.
    pub fn start_app(&self) {
        self.ctl(&["start_app"]);
    }

    /// Closes all client connections of this node with a close frame of AMQP that has this reason.
    pub fn close_all_connections(&self, reason: &str) {
        let name = self.node.name();
        self.ctl(&["close_all_connections", "--global", reason, "--node", &name]);
    }

    /// Turns the memory alarm on or off, and waits until the node reports it. While it is on, the
    /// node does not read from connections that publish.
    pub fn set_memory_alarm(&self, on: bool) {
        self.ctl(&["set_vm_memory_high_watermark", if on { "0.00001" } else { "0.4" }]);
        self.wait_for_alarm("memory", on);
    }

    /// Turns the disk alarm on or off, and waits until the node reports it.
    pub fn set_disk_alarm(&self, on: bool) {
        self.ctl(&["set_disk_free_limit", if on { "1000000GB" } else { "50MB" }]);
        self.wait_for_alarm("disk", on);
    }

    /// Waits for an alarm of this node. Alarms of other nodes of its cluster do not count.
    fn wait_for_alarm(&self, resource: &str, on: bool) {
        let look = format!(
            "lists:any(fun({{{{resource_limit,{resource},N}},_}}) -> N =:= node(); (_) -> false \
             end, rabbit_alarm:get_alarms())"
        );
        process::wait_until(&format!("the {resource} alarm to be {on}"), || {
            self.evals_to(&look, &on.to_string())
        });
    }
}
