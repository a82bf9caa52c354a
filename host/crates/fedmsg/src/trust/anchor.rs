//! The anchor: the certificate of the trusted CA.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ParsedExtension, X509Extension};
use x509_parser::x509::AlgorithmIdentifier;

use super::error::TrustError;
use crate::certificate::{self, IssuerHints};

/// The parts of the CA certificate that are needed to check other certificates.
#[derive(Debug)]
pub(super) struct Anchor {
    name: Vec<u8>,
    key: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    signs_crls: bool,
    pub(super) serial: Vec<u8>,
    /// First second of the validity period, and first second after it.
    pub(super) validity: (i64, i64),
}

impl Anchor {
    pub(super) fn parse(der: &[u8]) -> Result<Self, TrustError> {
        let unreadable =
            |error: crate::SignatureError| TrustError::CaUnreadable { reason: error.to_string() };
        let ca = certificate::parse(der).map_err(unreadable)?;
        let refused = |reason| Err(TrustError::NotACa { reason });
        if ca.subject().as_raw() != ca.issuer().as_raw() {
            return refused("another CA signed it");
        }
        if !ca.is_ca() {
            return refused("its basic constraints do not say that it is a CA");
        }
        let usage = ca.key_usage().ok().flatten().map(|usage| usage.value);
        if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return refused("its key usage does not allow signing certificates");
        }
        if restricts(&ca) {
            return refused("it has constraints on names or policies, which are not supported");
        }
        let key = certificate::rsa_key(ca.public_key()).map_err(unreadable)?.to_vec();
        let key_identifier = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            name: ca.subject().as_raw().to_vec(),
            key,
            key_identifier,
            signs_crls: usage.is_none_or(|usage| usage.crl_sign()),
            serial: certificate::serial(ca.raw_serial()).to_vec(),
            validity: (ca.validity().not_before.timestamp(), ca.validity().not_after.timestamp()),
        })
    }

    /// Returns true if a certificate or CRL with this issuer and these extensions names this CA as its
    /// issuer. Names are compared byte by byte.
    pub(super) fn is_issuer(&self, name: &[u8], extensions: &[X509Extension<'_>]) -> bool {
        let IssuerHints { key, serial, name: also } = certificate::issuer_hints(extensions);
        let is_key = match (&key, &self.key_identifier) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        let is_serial = serial.is_none_or(|serial| serial == self.serial);
        name == self.name && is_key && is_serial && also.is_none_or(|name| name == self.name)
    }

    /// Returns true if the signature was made by this CA, false if not, or `None` if the algorithm is not
    /// accepted.
    pub(super) fn has_signed(
        &self,
        algorithm: &AlgorithmIdentifier<'_>,
        content: &[u8],
        signature: &x509_parser::asn1_rs::BitString<'_>,
    ) -> Option<bool> {
        let is_whole = signature.unused_bits == 0;
        let is_signed = certificate::is_signed(algorithm, &self.key, content, &signature.data)?;
        Some(is_whole && is_signed)
    }

    pub(super) fn signs_crls(&self) -> bool {
        self.signs_crls
    }
}

fn restricts(ca: &X509Certificate<'_>) -> bool {
    ca.iter_extensions().any(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::NameConstraints(_)
                | ParsedExtension::PolicyConstraints(_)
                | ParsedExtension::PolicyMappings(_)
                | ParsedExtension::InhibitAnyPolicy(_)
        )
    })
}
