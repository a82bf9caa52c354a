//! What can go wrong with a node: it dies, falls silent, blocks its publishers or throws its
//! clients out.

use rustix::process::Signal;

use super::Rabbit;
use crate::process;

impl Rabbit {
    /// Kills the Erlang VM and whatever it started with SIGKILL, and waits until all of it is gone.
    /// Its epmd goes on.
    ///
    /// # Panics
    ///
    /// If the node is another process's: it could not be started again.
    pub fn kill(&self) {
        assert!(self.keeper.is_some(), "this node serves other tests, too");
        process::kill_family(self.server());
    }

    /// Starts the node again, with its data and on its ports, and waits until it runs. If it runs
    /// now it is killed first.
    ///
    /// # Panics
    ///
    /// If it does not start; the text has its log.
    pub fn restart(&self) {
        self.kill();
        self.keeper.as_ref().expect("`kill` has looked").start_server();
        self.wait_until_running();
    }

    /// Stops the Erlang VM where it is: its connections stay open and nobody answers.
    pub fn freeze(&self) {
        process::signal(self.server(), Signal::STOP);
        process::wait_until("the node to be stopped", || process::is_stopped(self.server()));
    }

    /// Lets a frozen node go on. A node of a cluster that was frozen until the others took it for
    /// dead, after some twelve seconds, stays parted from them: it takes [`Rabbit::stop_app`] and
    /// [`Rabbit::start_app`], or a restart, to join it again.
    pub fn thaw(&self) {
        process::signal(self.server(), Signal::CONT);
        process::wait_until("the node to go on", || !process::is_stopped(self.server()));
    }

    /// Returns whether the Erlang VM runs: it was not killed and is not frozen.
    pub fn is_running(&self) -> bool {
        process::is_alive(self.server()) && !process::is_stopped(self.server())
    }

    /// Stops RabbitMQ; the Erlang VM goes on.
    pub fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// Starts RabbitMQ again after [`Rabbit::stop_app`], and waits until it runs.
    pub fn start_app(&self) {
        self.ctl(&["start_app"]);
    }

    /// Closes all connections of this node's clients, in AMQP's way, for this reason.
    pub fn close_all_connections(&self, reason: &str) {
        let name = self.node.name();
        self.ctl(&["close_all_connections", "--global", reason, "--node", &name]);
    }

    /// Turns the memory alarm on or off, and waits until the node says so. While it is on the node
    /// reads nothing from connections that publish.
    pub fn set_memory_alarm(&self, on: bool) {
        self.ctl(&["set_vm_memory_high_watermark", if on { "0.00001" } else { "0.4" }]);
        self.wait_for_alarm("memory", on);
    }

    /// Turns the disk alarm on or off, and waits until the node says so.
    pub fn set_disk_alarm(&self, on: bool) {
        self.ctl(&["set_disk_free_limit", if on { "1000000GB" } else { "50MB" }]);
        self.wait_for_alarm("disk", on);
    }

    /// Looks at this node's own alarms, not at those of its cluster.
    fn wait_for_alarm(&self, resource: &str, on: bool) {
        let look = format!(
            "lists:any(fun({{{{resource_limit,{resource},N}},_}}) -> N =:= node(); (_) -> false \
             end, rabbit_alarm:get_alarms())."
        );
        process::wait_until(&format!("the {resource} alarm to be {on}"), || {
            self.ctl(&["eval", &look]).trim() == on.to_string()
        });
    }
}
