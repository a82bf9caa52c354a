//! Which signers of fedmsg are believed: a CA, what it has revoked, and who may publish which topic.
//!
//! Owns reading the files, at the start and again on a timer and on SIGHUP. What cannot be read again
//! leaves the last trust in force, which ends by itself with the dates in it. Before it: the files; after
//! it: ingest, which takes the verifier of now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_fedmsg::{RoutingPolicy, Trust, TrustError, Unlisted, Verifier, X509};
use loopabull_model::{Topic, TopicError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Fedmsg, Verify};
use crate::ingest;
use crate::observe::health::{Health, Part};
use crate::shutdown::Shutdown;

/// The largest file that is read, in bytes. Fedora's list of revoked certificates had 200 KB.
const MAX_FILE: u64 = 16 << 20;
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// Why signers cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignersError {
    #[error("signatures are to be checked, and there is no certificate of a CA")]
    NoCa,
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is larger than {MAX_FILE} bytes")]
    TooLarge { path: PathBuf },
    #[error("cannot trust `{ca}`")]
    Trust { ca: PathBuf, source: TrustError },
    #[error("the policy names `{topic}`, which is no topic")]
    Topic { topic: String, source: TopicError },
}

impl SignersError {
    /// Returns what the operator can do.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCa => Some(
                "name one with `--ca FILE`, or `ca` under `[fedmsg]`; or take all messages with \
                 `--unsigned`: whoever can publish on the endpoints can then start tasks",
            ),
            _ => None,
        }
    }
}

/// Makes the verifier that the settings ask for.
///
/// # Errors
///
/// If signatures are to be checked and no CA is named, or a file cannot be used.
pub(crate) fn verifier(config: &Fedmsg) -> Result<Verifier, SignersError> {
    if config.verify == Verify::Off {
        return Ok(Verifier::Off);
    }
    let ca = config.ca.as_ref().ok_or(SignersError::NoCa)?;
    let crl = config.crl.as_deref().map(read).transpose()?;
    let trust = Trust::new(&read(ca)?, crl.as_deref())
        .map_err(|source| SignersError::Trust { ca: ca.clone(), source })?;
    let lines = config.policy.iter().map(|(topic, signers)| {
        let cannot = |source| SignersError::Topic { topic: topic.clone(), source };
        Ok((Topic::try_from(topic.as_str()).map_err(cannot)?, signers.clone()))
    });
    let lines = lines.collect::<Result<Vec<_>, SignersError>>()?;
    let unlisted = if config.nitpicky { Unlisted::Refuse } else { Unlisted::Accept };
    Ok(Verifier::X509(Box::new(X509::new(trust, RoutingPolicy::new(lines, unlisted)))))
}

/// Reads the files again and again, until the daemon stops.
pub(crate) async fn keep(
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
        tell_of_end(&verifiers.borrow(), &health);
        tokio::select! {
            () = tokio::time::sleep(TICK) => if Instant::now() < due {
                continue;
            },
            _ = hangup.recv() => (),
            () = shutdown.drain.cancelled() => return,
        }
        renew(&config, &verifiers, &health);
        due = Instant::now() + config.refresh;
    }
}

/// Tells of a CA, or a list of what it has revoked, that has ended: then nothing comes in.
fn tell_of_end(verifier: &Verifier, health: &Health) {
    let Verifier::X509(x509) = verifier else { return };
    if x509.trust().valid_until() < ingest::now() {
        health.report(Part::Signatures, "the CA or its CRL has expired: every message is rejected");
    } else {
        health.resolve(&Part::Signatures);
    }
}

fn renew(config: &Fedmsg, verifiers: &watch::Sender<Arc<Verifier>>, health: &Health) {
    match verifier(config) {
        Ok(verifier) => {
            verifiers.send_replace(Arc::new(verifier));
            health.resolve(&Part::Signers);
            tracing::info!("read the trust in signers again");
        }
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::error!("the trust in signers stays as it was: {error}");
            health.report(Part::Signers, &error);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SignersError> {
    let cannot = |source| SignersError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_FILE {
        return Err(SignersError::TooLarge { path: path.to_owned() });
    }
    std::fs::read(path).map_err(cannot)
}
