//! The certificate revocation list (CRL) of a CA.

use std::collections::HashSet;

use x509_parser::extensions::X509Extension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::anchor::Anchor;
use super::error::TrustError;
use crate::certificate;

/// The extensions `deltaCRLIndicator` and `issuingDistributionPoint`. A CRL with one of these extensions may
/// list only the changes since another CRL, or only some of the revoked certificates. So this CRL is refused.
const PARTIAL: [&str; 2] = ["2.5.29.27", "2.5.29.28"];

/// The revoked serial numbers and the validity period of a CRL.
#[derive(Debug)]
pub(super) struct Revocations {
    serials: HashSet<Vec<u8>>,
    /// First second of the validity period, and first second after it. A CRL that does not state the time of
    /// the next update never expires. OpenSSL does the same.
    pub(super) validity: (i64, i64),
}

impl Revocations {
    /// Parses a CRL and checks that this CA issued it.
    pub(super) fn parse(der: &[u8], anchor: &Anchor) -> Result<Self, TrustError> {
        let unreadable = |reason| TrustError::CrlUnreadable { reason };
        let (rest, crl) = CertificateRevocationList::from_der(der)
            .map_err(|_| unreadable("it is not an X.509 CRL"))?;
        if !rest.is_empty() {
            return Err(unreadable("it has trailing bytes"));
        }
        if crl.signature_algorithm != crl.tbs_cert_list.signature {
            return Err(unreadable("its two algorithm fields differ"));
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

/// Refuses extensions that could change the meaning of a CRL or of one of its entries.
fn check(extensions: &[X509Extension<'_>]) -> Result<(), TrustError> {
    for extension in extensions {
        let oid = extension.oid.to_id_string();
        if extension.critical || PARTIAL.contains(&oid.as_str()) {
            return Err(TrustError::CrlExtension { oid });
        }
    }
    Ok(())
}
