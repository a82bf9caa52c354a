//! Whose certificates are believed: one CA, and the list of what it has revoked.
//!
//! Made of the bytes of two files, which the host reads; to replace one, a new trust is made. Has no
//! clock: every question brings the time with it.

mod anchor;
mod revocations;

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY};

use crate::{Distrust, certificate, pem};
use anchor::Anchor;
use revocations::Revocations;

/// Whose certificates are believed.
///
/// As in fedmsg, the CA signs the certificates of publishers itself, and of a file with several
/// certificates the first is the CA.
#[derive(Debug)]
pub struct Trust {
    anchor: Anchor,
    revocations: Option<Revocations>,
}

/// Why a CA or a CRL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the CA's certificate cannot be read: {reason}")]
    CaUnreadable { reason: String },
    #[error("the CA's certificate is not of a CA that signs by itself: {reason}")]
    NotACa { reason: &'static str },
    #[error("the CRL cannot be read: {reason}")]
    CrlUnreadable { reason: &'static str },
    #[error("the CRL is not of this CA")]
    CrlOfOther,
    #[error("the CRL is not signed by this CA, or by an algorithm that is not taken")]
    CrlForged,
    #[error("the CRL has the extension {oid}, which is unknown")]
    CrlExtension { oid: String },
}

/// A certificate that was checked, and until when the result holds.
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
    /// Makes a trust of the bytes of a CA's certificate and, if there is one, of its CRL; each in PEM
    /// or DER. That they are expired is no error here: it refuses every message until they are replaced.
    pub fn new(ca: &[u8], crl: Option<&[u8]>) -> Result<Self, TrustError> {
        let ca = der(ca, &["CERTIFICATE", "X509 CERTIFICATE"])
            .map_err(|reason| TrustError::CaUnreadable { reason: reason.to_owned() })?;
        let anchor = Anchor::parse(&ca)?;
        let crl = crl.map(|crl| der(crl, &["X509 CRL"])).transpose();
        let crl = crl.map_err(|reason| TrustError::CrlUnreadable { reason })?;
        let revocations = crl.map(|crl| Revocations::parse(&crl, &anchor)).transpose()?;
        Ok(Self { anchor, revocations })
    }

    /// Returns from when on nothing is believed any more: the end of the CA or of its CRL, whichever
    /// comes first, in seconds since 1970.
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

    /// Checks a certificate in DER.
    pub(crate) fn admit(&self, der: &[u8], now: i64) -> Result<Admitted, Distrust> {
        let leaf = certificate::parse(der)?;
        if !self.anchor.is_issuer(leaf.issuer().as_raw(), leaf.extensions()) {
            return Err(Distrust::OtherCa);
        }
        let signature = &leaf.signature_value;
        let content = leaf.tbs_certificate.as_ref();
        match self.anchor.has_signed(&leaf.signature_algorithm, content, signature) {
            None => {
                let oid = leaf.signature_algorithm.algorithm.to_id_string();
                return Err(Distrust::CertificateAlgorithm { oid });
            }
            Some(false) => return Err(Distrust::CertificateForged),
            Some(true) => (),
        }
        let serial = certificate::serial(leaf.raw_serial());
        self.check_time(now)?;
        let leaf_from = leaf.validity().not_before.timestamp();
        let leaf_until = leaf.validity().not_after.timestamp();
        if now < leaf_from {
            return Err(Distrust::CertificateNotYetValid { from: leaf_from });
        }
        if now >= leaf_until {
            return Err(Distrust::CertificateExpired { until: leaf_until });
        }
        if self.revocations.as_ref().is_some_and(|crl| crl.has(serial)) {
            return Err(Distrust::CertificateRevoked);
        }
        let signer = certificate::common_name(&leaf)?;
        let key = certificate::rsa_key(leaf.public_key())?;
        // What fedmsg signs with, and nothing else (`fedmsg/crypto/x509_ng.py`).
        let key = ParsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, key)
            .map_err(|_| Distrust::Key)?;
        let (from, until) = self.span();
        Ok(Admitted { key, signer, from: from.max(leaf_from), until: until.min(leaf_until) })
    }

    /// Checks the CA and its CRL themselves.
    fn check_time(&self, now: i64) -> Result<(), Distrust> {
        let (from, until) = self.anchor.validity;
        if now < from {
            return Err(Distrust::CaNotYetValid { from });
        }
        if now >= until {
            return Err(Distrust::CaExpired { until });
        }
        let Some(crl) = &self.revocations else { return Ok(()) };
        let (from, until) = crl.validity;
        if now < from {
            return Err(Distrust::CrlNotYetValid { from });
        }
        if now >= until {
            return Err(Distrust::CrlExpired { until });
        }
        if crl.has(&self.anchor.serial) {
            return Err(Distrust::CaRevoked);
        }
        Ok(())
    }
}

/// Returns the DER form of a file in either form.
fn der(bytes: &[u8], labels: &[&str]) -> Result<Vec<u8>, &'static str> {
    // The first byte of an ASN.1 sequence; PEM is text.
    if bytes.first() == Some(&0x30) { Ok(bytes.to_vec()) } else { pem::first(bytes, labels) }
}
