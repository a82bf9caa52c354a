//! The installation and upgrade of Debian packages by apt.

use std::sync::Once;
use std::time::Duration;

use anyhow::Result;

use crate::command::{command, on_path, run_slowly, say};

/// The time limit for an update of the package lists over a slow network.
const UPDATE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The time limit for an installation of all packages over a slow network.
const INSTALL_LIMIT: Duration = Duration::from_secs(30 * 60);

/// The shell script that installs packages. It prevents Debian from starting the services of the packages,
/// because the tests start their own servers.
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

/// Returns whether this process can install packages: it must be root, and apt must exist.
pub(super) fn may_install() -> bool {
    rustix::process::geteuid().is_root() && is_there()
}

/// Installs `packages` in one call of apt. Those of them that are already installed are upgraded. The package
/// lists are updated before the first installation.
///
/// # Errors
///
/// If apt fails. The error names the log.
pub(super) fn install(packages: &[&str], takes: Duration) -> Result<()> {
    static UPDATE: Once = Once::new();
    UPDATE.call_once(update);
    let mut install = command("sh");
    install.args(["-c", INSTALL, "apt"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run_slowly(&format!("installing {}", packages.join(", ")), takes, &mut install, INSTALL_LIMIT)
}

/// Updates the package lists. A failure is only printed, because the sources that can be reached may have all
/// needed packages.
fn update() {
    let mut update = command("apt-get");
    // Without this option apt reports success even if it could not update a list.
    update.args(["update", "-o", "APT::Update::Error-Mode=any"]);
    let takes = Duration::from_secs(10);
    if let Err(error) = run_slowly("updating the package lists", takes, &mut update, UPDATE_LIMIT) {
        say(&format!("{error:#}; continuing with the old package lists"));
    }
}
