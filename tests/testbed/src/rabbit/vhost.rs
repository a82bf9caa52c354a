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

    /// Returns the URL of the vhost for those who reach its node by another address: a proxy's.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/{}", self.name)
    }

    /// Waits until `rabbitmqctl list_queues` prints these lines of `name<TAB>messages`, sorted. A
    /// quorum queue tells the statistics its length only every few seconds.
    ///
    /// # Panics
    ///
    /// If it has not done so within a minute.
    pub fn wait_for_queues(&self, expected: &str) {
        let start = Instant::now();
        loop {
            let found = self.list_queues();
            if found == expected {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{found:?} is not {expected:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns what `rabbitmqctl list_queues` prints of the vhost, sorted.
    pub fn list_queues(&self) -> String {
        let arguments = ["list_queues", "--no-table-headers", "-p", &self.name];
        let text = super::succeed(&self.node, &arguments);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}
