//! A vhost of a node, made for one test.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::Rabbit;
use super::node::Node;

/// A vhost of a node, made for one test.
#[derive(Clone, Debug)]
pub struct Vhost {
    node: Node,
    pub name: String,
}

impl Rabbit {
    /// Makes a vhost for one test.
    pub fn vhost(&self) -> Vhost {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let added = self.eval(&format!("rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>)"));
        assert_eq!(added, "ok");
        let all = "<<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>";
        let allowed = self.eval(&format!(
            "rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, {all})"
        ));
        assert_eq!(allowed, "ok");
        Vhost { node: self.node.clone(), name }
    }
}

impl Vhost {
    /// Returns the URL of the vhost.
    pub fn url(&self) -> String {
        self.url_at(self.node.amqp())
    }

    /// Returns the URL of the vhost with another address of its node, for example the address of a proxy.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/{}", self.name)
    }

    /// Deletes a queue with its messages.
    ///
    /// # Panics
    ///
    /// If there is no such queue.
    pub fn delete_queue(&self, queue: &str) {
        let deleted = self.node.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)), \
             element(1, rabbit_amqqueue:delete(Q, false, false, <<\"tests\">>))",
            self.name
        ));
        assert_eq!(deleted.unwrap_or_else(|error| panic!("{error}")), "ok");
    }

    /// Waits until [`Vhost::list_queues`] returns these lines. A quorum queue updates its length in the
    /// statistics only every few seconds.
    ///
    /// # Panics
    ///
    /// If the output is not the expected one within a minute.
    pub fn wait_for_queues(&self, expected: &str) {
        let start = Instant::now();
        loop {
            let found = self.list_queues();
            if found == expected {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the queues are {found:?} instead of {expected:?}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns a line `name<TAB>messages` for each queue of the vhost, sorted.
    ///
    /// # Panics
    ///
    /// If the node does not answer.
    pub fn list_queues(&self) -> String {
        let name = "element(4, amqqueue:get_name(Q))";
        let count = "element(2, hd(rabbit_amqqueue:info(Q, [messages])))";
        let all = format!("rabbit_amqqueue:list(<<\"{}\">>)", self.name);
        let line = format!("io_lib:format(\"~s=~w\", [{name}, {count}])");
        let list = format!("lists:flatten(lists:join(\",\", [{line} || Q <- {all}]))");
        let text = self.node.eval(&list).unwrap_or_else(|error| panic!("{error}"));
        // Without queues, the value is the empty list.
        let text = text.trim_matches(['"', '[', ']']).replace('=', "\t");
        let mut lines: Vec<&str> = text.split(',').collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}
