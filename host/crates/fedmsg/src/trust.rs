//! The trusted CA and its certificate revocation list (CRL).
//!
//! The host reads the CA file and the CRL file, and passes their bytes to this module. If a file changes, the
//! host makes a new [`Trust`]. This module has no clock: the caller passes the current time to each check.

mod anchor;
mod error;
mod revocations;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY};

use crate::{SignatureError, certificate, pem};
use anchor::Anchor;
pub use error::TrustError;
use revocations::Revocations;

/// The trusted CA and its CRL.
///
/// As in fedmsg, the CA signs the certificates of publishers directly. If a CA file has several certificates,
/// the first one is used.
#[derive(Debug)]
pub struct Trust {
    anchor: Anchor,
    revocations: Option<Revocations>,
}

/// A certificate that was accepted, with the time range in which it may be used.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) key: ParsedPublicKey,
    pub(crate) signer: String,
    from: i64,
    until: i64,
}

impl Admitted {
    pub(crate) fn holds_at(&self, now: i64) -> bool {
        (self.from..self.until).contains(&now)
    }
}

impl Trust {
    /// Makes a `Trust` from a CA certificate and, optionally, its CRL. Both are the bytes of a PEM or DER
    /// file. An expired file is not an error here. With an expired file, every message is refused until the
    /// host makes a new `Trust`.
    pub fn new(ca: &[u8], crl: Option<&[u8]>) -> Result<Self, TrustError> {
        let ca = der(ca, &["CERTIFICATE", "X509 CERTIFICATE"])
            .map_err(|reason| TrustError::CaUnreadable { reason: reason.to_owned() })?;
        let anchor = Anchor::parse(&ca)?;
        let crl = crl.map(|crl| der(crl, &["X509 CRL"])).transpose();
        let crl = crl.map_err(|reason| TrustError::CrlUnreadable { reason })?;
        let revocations = crl.map(|crl| Revocations::parse(&crl, &anchor)).transpose()?;
        Ok(Self { anchor, revocations })
    }

    /// Returns the time from which no signature is accepted any more, in seconds since 1970. It is the time
    /// at which the CA or the CRL expires, whichever is earlier.
    pub fn valid_until(&self) -> i64 {
        self.span().1
    }

    fn span(&self) -> (i64, i64) {
        let (from, until) = self.anchor.validity;
        match &self.revocations {
            Some(crl) => (from.max(crl.validity.0), until.min(crl.validity.1)),
            None => (from, until),
        }
    }

    /// Checks a certificate in DER form.
    pub(crate) fn admit(&self, der: &[u8], now: i64) -> Result<Admitted, SignatureError> {
        let leaf = certificate::parse(der)?;
        if !self.anchor.is_issuer(leaf.issuer().as_raw(), leaf.extensions()) {
            return Err(SignatureError::OtherCa);
        }
        let signature = &leaf.signature_value;
        let content = leaf.tbs_certificate.as_ref();
        match self.anchor.has_signed(&leaf.signature_algorithm, content, signature) {
            None => {
                let oid = leaf.signature_algorithm.algorithm.to_id_string();
                return Err(SignatureError::CertificateAlgorithm { oid });
            }
            Some(false) => return Err(SignatureError::CertificateForged),
            Some(true) => (),
        }
        let serial = certificate::serial(leaf.raw_serial());
        self.check_time(now)?;
        let leaf_from = leaf.validity().not_before.timestamp();
        let leaf_until = leaf.validity().not_after.timestamp();
        if now < leaf_from {
            return Err(SignatureError::CertificateNotYetValid { from: leaf_from });
        }
        if now >= leaf_until {
            return Err(SignatureError::CertificateExpired { until: leaf_until });
        }
        if self.revocations.as_ref().is_some_and(|crl| crl.has(serial)) {
            return Err(SignatureError::CertificateRevoked);
        }
        let signer = certificate::common_name(&leaf)?;
        let key = certificate::rsa_key(leaf.public_key())?;
        // fedmsg signs only with RSA and SHA-1 (`fedmsg/crypto/x509_ng.py`).
        let key = ParsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
            .map_err(|_| SignatureError::Key)?;
        let (from, until) = self.span();
        Ok(Admitted { key, signer, from: from.max(leaf_from), until: until.min(leaf_until) })
    }

    /// Checks the validity periods of the CA and its CRL, and that the CRL does not revoke the CA.
    fn check_time(&self, now: i64) -> Result<(), SignatureError> {
        let (from, until) = self.anchor.validity;
        if now < from {
            return Err(SignatureError::CaNotYetValid { from });
        }
        if now >= until {
            return Err(SignatureError::CaExpired { until });
        }
        let Some(crl) = &self.revocations else { return Ok(()) };
        let (from, until) = crl.validity;
        if now < from {
            return Err(SignatureError::CrlNotYetValid { from });
        }
        if now >= until {
            return Err(SignatureError::CrlExpired { until });
        }
        if crl.has(&self.anchor.serial) {
            return Err(SignatureError::CaRevoked);
        }
        Ok(())
    }
}

/// Returns the DER form of a file that is PEM or DER.
fn der(bytes: &[u8], labels: &[&str]) -> Result<Vec<u8>, &'static str> {
    // DER starts with the first byte of an ASN.1 sequence, which PEM text does not contain.
    if bytes.first() == Some(&0x30) { Ok(bytes.to_vec()) } else { pem::first(bytes, labels) }
}
