//! Functions that cause the faults of a node: it dies, freezes, blocks its publishers or closes its
//! connections.

use rustix::process::Signal;

use super::Rabbit;
use crate::process;

impl Rabbit {
    /// Kills the Erlang VM and its descendants with SIGKILL, and waits until they are gone. The epmd of the
    /// node continues to run.
    ///
    /// # Panics
    ///
    /// If another process started the node. Only that process can start the node again.
    pub fn kill(&self) {
        assert!(self.keeper.is_some(), "a node that other tests use must not be killed");
        process::kill_family(self.server());
    }

    /// Starts the node again with the same data and ports, and waits until it runs. A running node
    /// is killed first.
    ///
    /// # Panics
    ///
    /// If the node does not start. The message contains the log of the node.
    pub fn restart(&self) {
        self.kill();
        self.keeper.as_ref().expect("`kill` checks that the node has a keeper").start_server();
        self.wait_until_running();
    }

    /// Stops the Erlang VM with SIGSTOP. Its connections stay open, but it does not answer.
    pub fn freeze(&self) {
        process::signal(self.server(), Signal::STOP);
        process::wait_until("the node to be stopped", || process::is_stopped(self.server()));
    }

    /// Continues a frozen node. The other nodes of a cluster consider a node dead that was frozen for more
    /// than about twelve seconds. Such a node joins the cluster again only after [`Rabbit::stop_app`] and
    /// [`Rabbit::start_app`], or after a restart.
    pub fn thaw(&self) {
        process::signal(self.server(), Signal::CONT);
        process::wait_until("the node to continue", || !process::is_stopped(self.server()));
    }

    /// Returns whether the Erlang VM is neither dead nor frozen.
    pub fn is_running(&self) -> bool {
        process::is_alive(self.server()) && !process::is_stopped(self.server())
    }

    /// Stops RabbitMQ. The Erlang VM keeps running.
    pub fn stop_app(&self) {
        self.change("rabbit:stop()");
    }

    /// Starts RabbitMQ again after [`Rabbit::stop_app`], and waits until it runs.
    pub fn start_app(&self) {
        self.change("rabbit:start()");
    }

    /// Closes all client connections of this node with a close frame of AMQP that has this reason.
    pub fn close_all_connections(&self, reason: &str) {
        // A connection may end by itself after it was listed.
        self.eval(&format!(
            "[(catch rabbit_networking:close_connection(C, \"{reason}\")) \
             || C <- pg_local:get_members(rabbit_connections)]"
        ));
    }

    /// Turns the memory alarm on or off, and waits until the node reports it. While it is on, the
    /// node does not read from connections that publish.
    pub fn set_memory_alarm(&self, on: bool) {
        let fraction = if on { "0.00001" } else { "0.4" };
        self.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction})"));
        self.wait_for_alarm("memory", on);
    }

    /// Turns the disk alarm on or off, and waits until the node reports it.
    pub fn set_disk_alarm(&self, on: bool) {
        let bytes: u64 = if on { 1 << 50 } else { 50_000_000 };
        self.eval(&format!("rabbit_disk_monitor:set_disk_free_limit({bytes})"));
        self.wait_for_alarm("disk", on);
    }

    /// Waits until an alarm of this node is on or off. Alarms of other nodes of the cluster do not count.
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
