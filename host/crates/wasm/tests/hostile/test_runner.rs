//! A runner for the tests of this crate.

use std::path::Path;

use loopabull_egress::{EgressLimits, TlsRoots};
use loopabull_wasm::{ComponentRunner, EgressSetup, Setup};

/// Returns a runner for this number of concurrent components. Without a cache directory, the runner compiles
/// each component that it loads.
pub(crate) fn runner(instances: u32, cache: Option<&Path>) -> ComponentRunner {
    let tls_roots = TlsRoots::load(None).unwrap();
    let egress = EgressSetup { limits: EgressLimits::default(), tls_roots };
    // No directory can be created below a device file, so this cache cannot be used.
    let cache = cache.unwrap_or(Path::new("/dev/null/cache")).to_owned();
    let setup = Setup { instances, cache, egress };
    ComponentRunner::new(&setup).unwrap()
}
