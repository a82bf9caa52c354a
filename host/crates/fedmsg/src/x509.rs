//! Checks signatures with X.509 certificates.
//!
//! The check is that of fedmsg's `x509` back end (`fedmsg/crypto/x509_ng.py`). The signature is RSA with
//! SHA-1 over the canonical JSON of the body. Its certificate must be issued by the CA and not revoked.
//! Accepted certificates are cached, so that verifying a message takes one RSA operation instead of two.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::envelope::{Envelope, Field, Fields};
use crate::trust::Admitted;
use crate::{RoutingPolicy, SignatureError, Trust, base64, pem};

/// The maximum size of the PEM text of a certificate, in bytes. Real certificates have about 3000.
const MAX_CERTIFICATE_BYTES: usize = 64 << 10;
/// The maximum number of bytes in JSON for one byte of text: `\u000a`.
const MAX_ESCAPE_BYTES: usize = 6;
/// The maximum size of the text of a certificate that is cached, in bytes.
const MAX_KNOWN_BYTES: usize = 8 << 10;
/// The maximum number of certificates in the cache. Fedora had about sixty.
const MAX_KNOWN: usize = 256;

/// Checks signatures against a trusted CA and a routing policy.
///
/// If the CA, the CRL or the policy changes, make a new `X509`. Its cache is empty, so all certificates are
/// checked against the new CRL.
#[derive(Debug)]
pub struct X509 {
    trust: Trust,
    policy: RoutingPolicy,
    known: Mutex<Known>,
}

/// The cache of accepted certificates. The key is the text of the certificate as it is written in a body. The
/// oldest certificate is removed first.
#[derive(Debug, Default)]
struct Known {
    by_end: HashMap<End, (Box<str>, Arc<Admitted>)>,
    order: VecDeque<End>,
}

/// The last bytes of the text of a certificate, which contain its signature. Two certificates never have the
/// same last bytes by chance, and hashing these bytes is faster than hashing the whole text.
type End = [u8; 64];

impl X509 {
    /// Makes a check from a trusted CA and a routing policy.
    pub fn new(trust: Trust, policy: RoutingPolicy) -> Self {
        Self { trust, policy, known: Mutex::default() }
    }

    /// Returns the trusted CA and its CRL.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Returns the signer of an envelope if this signer may publish the topic. `now` is in seconds since
    /// 1970. The caller must check that body and envelope have the same topic.
    pub(crate) fn check(&self, envelope: &Envelope, now: i64) -> Result<String, SignatureError> {
        let Fields { topic, crypto, signature, certificate, .. } = &envelope.fields;
        check_kind(crypto, signature, certificate, &envelope.text)?;
        let signature = match written(signature, "signature", &envelope.text)? {
            Some(written) => decode(&unquoted(written, "signature")?, "signature")?,
            None => return Err(SignatureError::SignatureMissing),
        };
        let Some(certificate) = written(certificate, "certificate", &envelope.text)? else {
            return Err(SignatureError::CertificateMissing);
        };
        if topic.is_none() {
            return Err(SignatureError::TopicMissing);
        }
        let known = self.known(|known| known.get(certificate));
        let (admitted, is_known) = match known.filter(|admitted| admitted.holds_at(now)) {
            Some(admitted) => (admitted, true),
            None => (Arc::new(self.admit(certificate, now)?), false),
        };
        let content = envelope.signed.canonical.as_bytes();
        if admitted.key.verify_sig(content, &signature).is_err() {
            return Err(SignatureError::SignatureWrong);
        }
        // The certificate is cached only after its key has verified a signature. Otherwise anybody with a
        // copy of a certificate could fill the cache with differently written copies of that certificate.
        if !is_known {
            self.known(|known| known.insert(certificate, Arc::clone(&admitted)));
        }
        self.policy.check(&envelope.topic, &admitted.signer)?;
        Ok(admitted.signer.clone())
    }

    /// Checks a certificate. `written` is the JSON string of the body.
    fn admit(&self, written: &str, now: i64) -> Result<Admitted, SignatureError> {
        let too_long = Err(SignatureError::CertificateUnreadable { reason: "it is too long" });
        if written.len() > MAX_CERTIFICATE_BYTES * MAX_ESCAPE_BYTES {
            return too_long;
        }
        // The field is the base64 text of a PEM text. PEM itself contains base64 too.
        let text = unquoted(written, "certificate")?;
        if text.len() > MAX_CERTIFICATE_BYTES {
            return too_long;
        }
        let pem = decode(&text, "certificate")?;
        let der = pem::first(&pem, &["CERTIFICATE", "X509 CERTIFICATE"])
            .map_err(|reason| SignatureError::CertificateUnreadable { reason })?;
        self.trust.admit(&der, now)
    }

    fn known<T>(&self, use_it: impl FnOnce(&mut Known) -> T) -> T {
        // A panic leaves no incomplete change in the cache, so a poisoned lock is still usable.
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

/// Determines the kind of signature as fedmsg does, and refuses every kind except `x509`.
fn check_kind(
    crypto: &Field,
    signature: &Field,
    certificate: &Field,
    body: &str,
) -> Result<(), SignatureError> {
    match crypto {
        Field::Text(span) => match unquoted(&body[span.clone()], "crypto").as_deref() {
            Ok("x509") => Ok(()),
            Ok("gpg") => Err(SignatureError::Gpg),
            _ => Err(SignatureError::UnknownCrypto),
        },
        Field::NotText => Err(SignatureError::UnknownCrypto),
        // Until fedmsg 0.7.2, bodies had no key `crypto`.
        Field::Absent => match (certificate, signature) {
            (Field::Absent, Field::Absent) => Err(SignatureError::Unsigned),
            (Field::Absent, _) => Err(SignatureError::Gpg),
            _ => Ok(()),
        },
    }
}

/// Returns the JSON string of a field, with its quotes and escapes.
fn written<'a>(
    field: &Field,
    key: &'static str,
    body: &'a str,
) -> Result<Option<&'a str>, SignatureError> {
    match field {
        Field::Absent => Ok(None),
        Field::Text(span) => Ok(Some(&body[span.clone()])),
        Field::NotText => Err(SignatureError::NotText { key }),
    }
}

/// Returns the value of a JSON string.
fn unquoted(written: &str, key: &'static str) -> Result<String, SignatureError> {
    serde_json::from_str(written).map_err(|_| SignatureError::NotText { key })
}

fn decode(text: &str, key: &'static str) -> Result<Vec<u8>, SignatureError> {
    base64::decode(text.as_bytes()).map_err(|_| SignatureError::Base64 { key })
}
