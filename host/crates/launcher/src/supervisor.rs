//! The two processes between the daemon and the program.
//!
//! The daemon starts the outer process, which receives signals and notices when the daemon is gone. The
//! inner process is the first of the program's namespaces, or, without namespaces, the one that adopts
//! the program's orphans. It builds the root file system, starts the program, and kills everything that
//! the program leaves behind. Owns which process waits for which. Before it: `main`; after it: the
//! pipeline, in a third process.
//!
//! SIGTERM, SIGINT or SIGHUP stops the program: its process group gets SIGTERM. A second signal, half a
//! second later or more, kills all its processes; an earlier one counts as the same signal, because some
//! senders signal both the launcher and its process group. When the other end of the control socket is
//! closed, everything is killed at once.

mod inner;
mod outer;
mod signals;

pub use outer::Launch;
