//! The check of a signature by a certificate.
//!
//! fedmsg's `x509` back end (`fedmsg/crypto/x509_ng.py`): RSA with SHA-1 over canonical JSON, by a
//! certificate of the one CA, which must not be revoked. Certificates that were found good are kept, so
//! that a message costs one RSA operation, not two.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::envelope::{Envelope, Field, Fields};
use crate::trust::Admitted;
use crate::{Distrust, RoutingPolicy, Trust, base64, pem};

/// The longest certificate that is looked at, in bytes of its text. Real ones have three thousand.
const MAX_CERTIFICATE_BYTES: usize = 64 << 10;
/// How many bytes one byte of a text may be in JSON: `\u000a`.
const LONGEST_ESCAPE: usize = 6;
/// The longest text that is remembered, in bytes.
const MAX_KNOWN_BYTES: usize = 8 << 10;
/// How many certificates are remembered. Fedora had some sixty.
const MAX_KNOWN: usize = 256;

/// Whom to believe, and what of them.
///
/// To replace the trust or the policy a new one is made; nothing of the old is kept, and certificates
/// that were revoked meanwhile are known to be.
#[derive(Debug)]
pub struct X509 {
    trust: Trust,
    policy: RoutingPolicy,
    known: Mutex<Known>,
}

/// The certificates that were found good, with their texts as they are written in a body. The oldest goes
/// first.
#[derive(Debug, Default)]
struct Known {
    by_end: HashMap<End, (Box<str>, Arc<Admitted>)>,
    order: VecDeque<End>,
}

/// The end of a text, where a certificate has its signature: no two have the same by chance, and it is
/// sooner hashed than the whole.
type End = [u8; 64];

impl X509 {
    /// Makes a check of a trust and a policy.
    pub fn new(trust: Trust, policy: RoutingPolicy) -> Self {
        Self { trust, policy, known: Mutex::default() }
    }

    /// Returns the trust, for what is told of it.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Returns who signed an envelope, if that one may publish its topic. `now` is in seconds since
    /// 1970. That the topic of the body is the topic of the envelope is left to the caller.
    pub(crate) fn check(&self, envelope: &Envelope, now: i64) -> Result<String, Distrust> {
        let Fields { topic, crypto, signature, certificate, .. } = &envelope.fields;
        check_kind(crypto, signature, certificate, &envelope.text)?;
        let signature = match written(signature, "signature", &envelope.text)? {
            Some(written) => decode(&unquoted(written, "signature")?, "signature")?,
            None => return Err(Distrust::SignatureMissing),
        };
        let Some(certificate) = written(certificate, "certificate", &envelope.text)? else {
            return Err(Distrust::CertificateMissing);
        };
        if topic.is_none() {
            return Err(Distrust::TopicMissing);
        }
        let known = self.known(|known| known.get(certificate));
        let (admitted, is_known) = match known.filter(|admitted| admitted.holds_at(now)) {
            Some(admitted) => (admitted, true),
            None => (Arc::new(self.admit(certificate, now)?), false),
        };
        let content = envelope.signed.canonical.as_bytes();
        if admitted.key.verify_sig(content, &signature).is_err() {
            return Err(Distrust::SignatureWrong);
        }
        // Not before: whoever has a copy of a certificate could write it in ever other ways.
        if !is_known {
            self.known(|known| known.insert(certificate, Arc::clone(&admitted)));
        }
        self.policy.check(&envelope.topic, &admitted.signer)?;
        Ok(admitted.signer.clone())
    }

    /// Checks a certificate, which is given as it is written in a body.
    fn admit(&self, written: &str, now: i64) -> Result<Admitted, Distrust> {
        let too_long = Err(Distrust::CertificateUnreadable { reason: "it is too long" });
        if written.len() > MAX_CERTIFICATE_BYTES * LONGEST_ESCAPE {
            return too_long;
        }
        // The field holds the base64 of a PEM text, which is base64 itself.
        let text = unquoted(written, "certificate")?;
        if text.len() > MAX_CERTIFICATE_BYTES {
            return too_long;
        }
        let pem = decode(&text, "certificate")?;
        let der = pem::first(&pem, &["CERTIFICATE", "X509 CERTIFICATE"])
            .map_err(|reason| Distrust::CertificateUnreadable { reason })?;
        self.trust.admit(&der, now)
    }

    fn known<T>(&self, use_it: impl FnOnce(&mut Known) -> T) -> T {
        // Nothing is left half done in it, also by a thread that panicked.
        use_it(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn get(&self, text: &str) -> Option<Arc<Admitted>> {
        let (known, admitted) = self.by_end.get(text.as_bytes().last_chunk()?)?;
        (**known == *text).then(|| Arc::clone(admitted))
    }

    fn insert(&mut self, text: &str, admitted: Arc<Admitted>) {
        let Some(end) = text.as_bytes().last_chunk().filter(|_| text.len() <= MAX_KNOWN_BYTES)
        else {
            return;
        };
        if self.by_end.insert(*end, (text.into(), admitted)).is_some() {
            return;
        }
        self.order.push_back(*end);
        if self.order.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_end.remove(&oldest);
        }
    }
}

/// Chooses the back end as fedmsg does, and refuses all but one.
fn check_kind(
    crypto: &Field,
    signature: &Field,
    certificate: &Field,
    body: &str,
) -> Result<(), Distrust> {
    match crypto {
        Field::Text(span) => match unquoted(&body[span.clone()], "crypto").as_deref() {
            Ok("x509") => Ok(()),
            Ok("gpg") => Err(Distrust::Gpg),
            _ => Err(Distrust::UnknownCrypto),
        },
        Field::NotText => Err(Distrust::UnknownCrypto),
        // Up to fedmsg 0.7.2 a body did not say how it was signed.
        Field::Absent => match (certificate, signature) {
            (Field::Absent, Field::Absent) => Err(Distrust::Unsigned),
            (Field::Absent, _) => Err(Distrust::Gpg),
            _ => Ok(()),
        },
    }
}

/// Returns a text as it is written in the body.
fn written<'a>(
    field: &Field,
    key: &'static str,
    body: &'a str,
) -> Result<Option<&'a str>, Distrust> {
    match field {
        Field::Absent => Ok(None),
        Field::Text(span) => Ok(Some(&body[span.clone()])),
        Field::NotText => Err(Distrust::NotText { key }),
    }
}

/// Returns what a text stands for.
fn unquoted(written: &str, key: &'static str) -> Result<String, Distrust> {
    serde_json::from_str(written).map_err(|_| Distrust::NotText { key })
}

fn decode(text: &str, key: &'static str) -> Result<Vec<u8>, Distrust> {
    base64::decode(text.as_bytes()).map_err(|_| Distrust::Base64 { key })
}
