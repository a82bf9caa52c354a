//! The list of what a CA has revoked.

use std::collections::HashSet;

use x509_parser::extensions::X509Extension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::TrustError;
use super::anchor::Anchor;
use crate::certificate;

/// A list that is about some certificates only, or about what has changed since another.
const PARTIAL: [&str; 2] = ["2.5.29.27", "2.5.29.28"];

/// The serial numbers of a CRL.
#[derive(Debug)]
pub(super) struct Revocations {
    serials: HashSet<Vec<u8>>,
    /// From when, and until before when; a list that names no next one has no end, as in OpenSSL.
    pub(super) validity: (i64, i64),
}

impl Revocations {
    /// Reads a CRL of this CA.
    pub(super) fn parse(der: &[u8], anchor: &Anchor) -> Result<Self, TrustError> {
        let unreadable = |reason| TrustError::CrlUnreadable { reason };
        let (rest, crl) = CertificateRevocationList::from_der(der)
            .map_err(|_| unreadable("it is not a list of X.509"))?;
        if !rest.is_empty() {
            return Err(unreadable("something comes after it"));
        }
        if crl.signature_algorithm != crl.tbs_cert_list.signature {
            return Err(unreadable("it names two algorithms"));
        }
        if !anchor.is_issuer(crl.issuer().as_raw(), crl.extensions()) || !anchor.signs_crls() {
            return Err(TrustError::CrlOfOther);
        }
        let content = crl.tbs_cert_list.as_ref();
        if anchor.has_signed(&crl.signature_algorithm, content, &crl.signature_value) != Some(true)
        {
            return Err(TrustError::CrlForged);
        }
        check(crl.extensions())?;
        let mut serials = HashSet::new();
        for revoked in crl.iter_revoked_certificates() {
            check(revoked.extensions())?;
            serials.insert(certificate::serial(revoked.raw_serial()).to_vec());
        }
        let from = crl.last_update().timestamp();
        let until = crl.next_update().map_or(i64::MAX, |time| time.timestamp());
        Ok(Self { serials, validity: (from, until) })
    }

    pub(super) fn has(&self, serial: &[u8]) -> bool {
        self.serials.contains(serial)
    }
}

/// Refuses whatever could make an entry mean less or something else than that it is revoked.
fn check(extensions: &[X509Extension<'_>]) -> Result<(), TrustError> {
    for extension in extensions {
        let oid = extension.oid.to_id_string();
        if extension.critical || PARTIAL.contains(&oid.as_str()) {
            return Err(TrustError::CrlExtension { oid });
        }
    }
    Ok(())
}
