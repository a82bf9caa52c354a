//! The import `state`, with which a guest reads and changes the stored state of its task.
//!
//! The changes are kept with the run. The host's journal stores them if the run succeeds and none of the
//! stored values that the guest has read was changed by another run in the meantime.

use loopabull_model::{Counted, Exceeded, is_harmful};

use crate::bindings::loopabull::task::state;
use crate::host::{Host, HostFailed, LimitExceeded};

/// The maximum length of a key, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// The maximum number of keys that a run may read. A run may write as many keys.
const MAX_KEYS: u64 = 1000;

impl state::Host for Host {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        if check(&key).is_err() {
            return Ok(None);
        }
        if let Some(value) = self.state.written.get(&key) {
            return Ok(value.clone());
        }
        if let Some(value) = self.state.read.get(&key) {
            return Ok(value.clone());
        }
        let value = (self.read_state)(key.clone()).await.map_err(HostFailed)?;
        self.state.read.insert(key, value.clone());
        self.check_size()?;
        Ok(value)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.write(key, Some(value))
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        // An invalid key has no value that could be deleted, so the error is ignored.
        self.write(key, None).map(drop)
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<bool, String>> {
        if let Err(reason) = check(&key) {
            return Ok(Err(reason));
        }
        if self.get(key.clone()).await? != expected {
            return Ok(Ok(false));
        }
        Ok(self.write(key, new)?.map(|()| true))
    }
}

impl Host {
    fn write(
        &mut self,
        key: String,
        value: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<(), String>> {
        if let Err(reason) = check(&key) {
            return Ok(Err(reason));
        }
        // The size is checked first, because searching a large value for secrets takes long.
        let wanted = value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
        if wanted > self.state.allowed {
            return Err(limit(Counted::StateBytes, self.state.allowed, wanted));
        }
        let mask = &self.capabilities.mask;
        let find = |bytes: &[u8]| mask.find(bytes).map(str::to_owned);
        if let Some(secret) = value.as_deref().and_then(find).or_else(|| find(key.as_bytes())) {
            return Ok(Err(format!("the value contains the secret `{secret}`")));
        }
        self.state.written.insert(key, value);
        self.check_size()?;
        Ok(Ok(()))
    }

    /// Checks that the changes of this run fit the state limit of the task. The size of the whole state is
    /// checked when the changes are stored.
    fn check_size(&self) -> wasmtime::Result<()> {
        let written = self.state.written.iter();
        let values = written.filter_map(|(key, value)| Some(key.len() + value.as_ref()?.len()));
        let (wanted, allowed) = (values.sum::<usize>() as u64, self.state.allowed);
        if wanted > allowed {
            return Err(limit(Counted::StateBytes, allowed, wanted));
        }
        let keys = self.state.written.len().max(self.state.read.len()) as u64;
        if keys > MAX_KEYS {
            return Err(limit(Counted::StateKeys, MAX_KEYS, keys));
        }
        Ok(())
    }
}

fn limit(what: Counted, allowed: u64, wanted: u64) -> wasmtime::Error {
    LimitExceeded(Exceeded::Count { what, allowed, wanted }).into()
}

fn check(key: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES || key.chars().any(is_harmful) {
        return Err(format!("a key must have 1 to {MAX_KEY_BYTES} bytes and no control character"));
    }
    Ok(())
}
