//! The two processes between the daemon and the program.
//!
//! The daemon starts the outer process, which receives signals and detects the end of the daemon. The inner
//! process is the first process in the program's namespaces. Without namespaces, the inner process is the
//! child subreaper, which adopts orphans of the program. The inner process builds the root file system,
//! starts the program, and kills all processes that the program leaves behind. A third process runs the
//! pipeline and becomes the program.
//!
//! On SIGTERM, SIGINT or SIGHUP, the process group of the program gets SIGTERM. A second signal, half a
//! second later or more, kills all processes of the program. An earlier second signal is ignored, because
//! some senders signal both the launcher and its process group. When the other end of the control socket is
//! closed, all processes are killed at once.

mod inner;
mod outer;
mod signals;

pub use outer::Launch;
