//! The keeper: a shell process that owns a node. It starts the node's server on command, and ends with the
//! test process.
//!
//! The keeper reads commands from its standard input, which is closed when the test process ends, even by a
//! kill. Then the keeper kills the server and epmd (Erlang's name server), and removes the folder of the
//! node. If the keeper itself is killed, the kernel kills the server and epmd.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Mutex, PoisonError};

use super::node::Node;
use crate::process;

/// The start script of the server. The wrapper in `/usr/sbin` is not used, because it switches to the user
/// `rabbitmq`.
pub(super) const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The program of the keeper. `setpriv`, `setsid` and the start script each replace themselves by the next
/// program, so `$!` is the process id of the Erlang VM in the end.
const SCRIPT: &str = r#"
exec 3<&0
setpriv --pdeathsig KILL setsid epmd -port "$ERL_EPMD_PORT" -address "$ERL_EPMD_ADDRESS" \
    </dev/null >/dev/null 2>&1 3<&- &
epmd=$!
server=
while read -r command <&3; do
    setpriv --pdeathsig KILL setsid "$1" </dev/null >>"$2/out" 2>&1 3<&- &
    server=$!
    echo "$server" >"$2/server.new" && mv "$2/server.new" "$2/server"
done
kill -9 $server $epmd 2>/dev/null
wait
rm -rf "$2"
"#;

/// The keeper of one node.
#[derive(Debug)]
pub(super) struct Keeper {
    base: PathBuf,
    shell: Child,
    /// The standard input of the keeper. The keeper ends when it is closed.
    commands: Mutex<Option<ChildStdin>>,
}

impl Keeper {
    /// Starts a keeper and epmd, but no server.
    pub(super) fn start(node: &Node) -> Self {
        let mut shell = node.command("/bin/sh");
        shell.args(["-c", SCRIPT, "keeper", SERVER]).arg(node.base()).stdin(Stdio::piped());
        shell.stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        let mut shell = shell.spawn().expect("`/bin/sh` can be started");
        let commands = Mutex::new(shell.stdin.take());
        let keeper = Self { base: node.base().to_owned(), shell, commands };
        // Waits for epmd. A server that finds no epmd would start another one, which nobody would stop.
        process::wait_until("epmd", || std::net::TcpStream::connect(node.epmd()).is_ok());
        keeper
    }

    /// Starts the server. An earlier server must have ended.
    pub(super) fn start_server(&self) {
        for old in ["server", "pid"] {
            drop(fs::remove_file(self.base.join(old)));
        }
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = commands.as_mut().expect("the input of the keeper is closed only on drop");
        commands.write_all(b"start\n").expect("the keeper lives as long as the test process");
        process::wait_until("the server to be started", || server(&self.base).is_some());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.commands.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        drop(self.shell.wait());
    }
}

/// Returns the process id of the Erlang VM that was started last.
pub(super) fn server(base: &Path) -> Option<u32> {
    fs::read_to_string(base.join("server")).ok()?.trim().parse().ok()
}
