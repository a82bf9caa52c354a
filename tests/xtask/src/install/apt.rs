//! Debian packages, installed and upgraded by apt.

use std::sync::Once;
use std::time::Duration;

use anyhow::Result;

use crate::command::{command, on_path, run_slowly, say};

/// For the package lists, over a slow line.
const UPDATE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// For all packages that the tests need, over a slow line.
const INSTALL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Installs packages, and keeps their services from being started: the tests start servers of their
/// own.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get install -y --no-install-recommends --no-remove -o DPkg::Lock::Timeout=120 "$@"
"#;

/// Returns whether this machine has apt.
pub(super) fn is_there() -> bool {
    on_path("apt-get").is_some()
}

/// Returns whether we may install packages.
pub(super) fn may_install() -> bool {
    rustix::process::geteuid().is_root() && is_there()
}

/// Installs packages in one call; those that are installed are upgraded. The package lists are
/// updated before the first installation.
///
/// # Errors
///
/// If apt fails; the text names the log.
pub(super) fn install(packages: &[&str], takes: Duration) -> Result<()> {
    static UPDATE: Once = Once::new();
    UPDATE.call_once(update);
    let mut install = command("sh");
    install.args(["-c", INSTALL, "apt"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run_slowly(&format!("installing {}", packages.join(", ")), takes, &mut install, INSTALL_LIMIT)
}

/// Updates the package lists. A failure is only shown: one source of several may be unreachable, and
/// the others may have all that is needed.
fn update() {
    let mut update = command("apt-get");
    // Otherwise apt reports success although it kept an old list.
    update.args(["update", "-o", "APT::Update::Error-Mode=any"]);
    let takes = Duration::from_secs(10);
    if let Err(error) = run_slowly("updating the package lists", takes, &mut update, UPDATE_LIMIT) {
        say(&format!("{error:#}; going on with the lists as they are"));
    }
}
