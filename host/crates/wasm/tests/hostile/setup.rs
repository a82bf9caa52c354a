//! How the tests of this crate set a runner up. Shared by all of them.

use std::path::Path;

use loopabull_egress::{EgressLimits, Resolver, Trust};
use loopabull_wasm::{ComponentRunner, EgressSetup, Setup};

/// Returns a runner for so many components at a time.
pub(crate) fn runner(instances: u32, cache: Option<&Path>) -> ComponentRunner {
    let trust = Trust::load(None).unwrap();
    let egress = EgressSetup { limits: EgressLimits::default(), trust, resolver: Resolver::System };
    let setup = Setup { instances, cache: cache.map(Path::to_owned), egress };
    ComponentRunner::new(&setup).unwrap()
}
