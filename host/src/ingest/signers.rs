//! Builds the verifier of fedmsg signatures from a CA, its revocation list (CRL), and the routing
//! policy.
//!
//! The files of the CA and the CRL are read at start, at an interval, and on SIGHUP. If a file
//! cannot be reread, the last verifier stays in use. Once its CA or CRL has expired, the verifier
//! rejects every message. The fedmsg source verifies messages with the current verifier.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_fedmsg::{RoutingPolicy, Trust, TrustError, Unlisted, Verifier, X509};
use loopabull_model::{Topic, TopicError, chain};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clock;
use crate::config::{Fedmsg, Verify};
use crate::observe::health::{Health, Part};
use crate::shutdown::Shutdown;

/// Maximum size of a CA or CRL file, in bytes. Fedora's CRL had 200 KB.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// Interval between checks whether a refresh is due and whether the CA or the CRL has expired.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The reason why signatures cannot be verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignersError {
    #[error("no CA certificate is configured")]
    NoCa,
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge { path: PathBuf },
    #[error("cannot use the CA `{ca}` or its CRL")]
    Trust { ca: PathBuf, source: TrustError },
    #[error("`{topic}` in the routing policy is not a valid topic")]
    Topic { topic: String, source: TopicError },
}

impl SignersError {
    /// Returns a hint for the operator.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCa => Some(
                "name a CA certificate with `--ca FILE`, or with `ca` under `[fedmsg]`; with \
                 `--unsigned`, anyone who can publish on the endpoints can start tasks",
            ),
            _ => None,
        }
    }
}

/// Creates the verifier for a configuration.
///
/// # Errors
///
/// If signatures are required and no CA is configured, or if a file or the routing policy cannot be
/// used.
pub(crate) fn verifier(config: &Fedmsg) -> Result<Verifier, SignersError> {
    if config.verify == Verify::Off {
        return Ok(Verifier::Off);
    }
    let ca = config.ca.as_ref().ok_or(SignersError::NoCa)?;
    let crl = config.crl.as_deref().map(read).transpose()?;
    let trust = Trust::new(&read(ca)?, crl.as_deref())
        .map_err(|source| SignersError::Trust { ca: ca.clone(), source })?;
    let policy = config.policy.iter().map(|(topic, signers)| {
        let cannot = |source| SignersError::Topic { topic: topic.clone(), source };
        Ok((Topic::try_from(topic.as_str()).map_err(cannot)?, signers.clone()))
    });
    let policy = policy.collect::<Result<Vec<_>, SignersError>>()?;
    let unlisted = if config.nitpicky { Unlisted::Refuse } else { Unlisted::Accept };
    Ok(Verifier::X509(Box::new(X509::new(trust, RoutingPolicy::new(policy, unlisted)))))
}

/// Rereads the files at the configured interval and on SIGHUP, until the daemon drains.
pub(super) async fn refresh(
    config: Fedmsg,
    verifiers: watch::Sender<Arc<Verifier>>,
    health: Arc<Health>,
    shutdown: Shutdown,
) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            health.report(Part::Signers, format_args!("cannot receive SIGHUP: {error}"));
            return shutdown.drain.cancelled().await;
        }
    };
    let mut due = Instant::now() + config.refresh;
    loop {
        check_validity(&verifiers.borrow(), &health);
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => if Instant::now() < due {
                continue;
            },
            _ = hangup.recv() => (),
            () = shutdown.drain.cancelled() => return,
        }
        read_again(&config, &verifiers, &health);
        due = Instant::now() + config.refresh;
    }
}

/// Reports a problem if the CA or the CRL has expired. Every message is rejected in this case.
fn check_validity(verifier: &Verifier, health: &Health) {
    let Verifier::X509(x509) = verifier else { return };
    if x509.trust().valid_until() < clock::now_seconds() {
        let problem = "the CA or its CRL has expired: every message is rejected";
        health.report(Part::Signatures, problem);
    } else {
        health.resolve(&Part::Signatures);
    }
}

fn read_again(config: &Fedmsg, verifiers: &watch::Sender<Arc<Verifier>>, health: &Health) {
    match verifier(config) {
        Ok(verifier) => {
            verifiers.send_replace(Arc::new(verifier));
            health.resolve(&Part::Signers);
            tracing::info!("reread the CA and its CRL");
        }
        Err(error) => {
            let error = chain(error);
            tracing::error!(
                "cannot reread the CA and CRL, the last verifier stays in use: {error}"
            );
            health.report(Part::Signers, &error);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SignersError> {
    let cannot = |source| SignersError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_FILE_BYTES {
        return Err(SignersError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(cannot)
}
