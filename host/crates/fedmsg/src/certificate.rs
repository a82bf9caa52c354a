//! Reads the parts of a certificate that are needed to check a chain of one CA and one leaf certificate.
//!
//! This module knows ASN.1 and the signature algorithms. It does not know which CA is trusted: the module
//! `trust` checks the chain with these functions.

use std::collections::HashSet;

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use loopabull_model::is_harmful;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use crate::SignatureError;

/// The maximum length of a common name, in bytes. A host name has at most 253.
const MAX_NAME_BYTES: usize = 255;

/// Parses the DER form of one certificate. Bytes after the certificate are an error.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, SignatureError> {
    let unreadable = |reason| SignatureError::CertificateUnreadable { reason };
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| unreadable("it is not X.509"))?;
    if !rest.is_empty() {
        return Err(unreadable("it has trailing bytes"));
    }
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return Err(unreadable("its two algorithm fields differ"));
    }
    check_extensions(certificate.extensions())?;
    Ok(certificate)
}

/// Refuses extensions that are repeated, that cannot be read, or that are critical and unknown.
fn check_extensions(extensions: &[X509Extension<'_>]) -> Result<(), SignatureError> {
    let unreadable = |reason| SignatureError::CertificateUnreadable { reason };
    let mut seen = HashSet::new();
    for extension in extensions {
        if !seen.insert(&extension.oid) {
            return Err(unreadable("it has an extension twice"));
        }
        // The name and policy constraints of a CA are not in this list, because this crate does not apply
        // them. A certificate in which they are critical is refused.
        let is_known = matches!(
            extension.parsed_extension(),
            ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::CertificatePolicies(_)
                | ParsedExtension::CRLDistributionPoints(_)
                | ParsedExtension::NSCertType(_)
        );
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => {
                return Err(unreadable("it has an extension that cannot be read"));
            }
            ParsedExtension::KeyUsage(usage) if usage.flags == 0 => {
                return Err(unreadable("its key usage allows nothing"));
            }
            _ if extension.critical && !is_known => {
                return Err(SignatureError::CriticalExtension {
                    oid: extension.oid.to_id_string(),
                });
            }
            _ => (),
        }
    }
    Ok(())
}

/// Returns the RSA key in PKCS #1 form.
pub(crate) fn rsa_key<'a>(info: &'a SubjectPublicKeyInfo<'_>) -> Result<&'a [u8], SignatureError> {
    let is_rsa = info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION;
    let is_whole = info.subject_public_key.unused_bits == 0;
    if is_rsa && is_whole { Ok(&info.subject_public_key.data) } else { Err(SignatureError::Key) }
}

/// Returns true if the signature was made with `key`, false if not, or `None` if the algorithm is not
/// accepted.
///
/// MD5 is not accepted. aws-lc-rs supports SHA-384 only for keys of at least 2048 bits.
pub(crate) fn is_signed(
    algorithm: &AlgorithmIdentifier<'_>,
    key: &[u8],
    content: &[u8],
    signature: &[u8],
) -> Option<bool> {
    let algorithms: [(_, &'static dyn VerificationAlgorithm); 4] = [
        (OID_PKCS1_SHA1WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        (OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        (OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
        (OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
    ];
    let (_, verification) = algorithms.iter().find(|(oid, _)| *oid == algorithm.algorithm)?;
    Some(UnparsedPublicKey::new(*verification, key).verify(content, signature).is_ok())
}

/// Returns the first common name of the subject. fedmsg uses the same one.
pub(crate) fn common_name(certificate: &X509Certificate<'_>) -> Result<String, SignatureError> {
    let name = certificate.subject().iter_common_name().next();
    let name = name.ok_or(SignatureError::CommonNameMissing)?;
    let name = name.as_str().map_err(|_| SignatureError::BadCommonName)?;
    let is_bad = name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(is_harmful);
    if is_bad { Err(SignatureError::BadCommonName) } else { Ok(name.to_owned()) }
}

/// Returns a serial number without leading zeros, so that equal numbers have equal bytes.
pub(crate) fn serial(raw: &[u8]) -> &[u8] {
    let zeros = raw.iter().take_while(|&&byte| byte == 0).count();
    &raw[zeros..]
}

/// Returns the fields that identify the issuer of a certificate or CRL, in addition to the issuer's name.
pub(crate) fn issuer_hints(extensions: &[X509Extension<'_>]) -> IssuerHints {
    let hints = extensions.iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(hints) => Some(hints),
        _ => None,
    });
    let Some(hints) = hints else { return IssuerHints::default() };
    let names = hints.authority_cert_issuer.iter().flatten();
    let name = names.into_iter().find_map(|name| match name {
        GeneralName::DirectoryName(name) => Some(name.as_raw().to_vec()),
        _ => None,
    });
    IssuerHints {
        key: hints.key_identifier.as_ref().map(|key| key.0.to_vec()),
        serial: hints.authority_cert_serial.map(|raw| serial(raw).to_vec()),
        name,
    }
}

/// The fields that identify an issuer, in addition to the issuer's name.
#[derive(Debug, Default)]
pub(crate) struct IssuerHints {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) serial: Option<Vec<u8>>,
    pub(crate) name: Option<Vec<u8>>,
}
