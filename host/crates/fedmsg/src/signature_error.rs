//! The reasons why a signature is not accepted.

/// The reason why a signature is not accepted.
///
/// The set of reasons is fixed, and each reason is also a reason of [`Rejection`](crate::Rejection). Times
/// are in seconds since 1970.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    #[error("body is not signed")]
    Unsigned,
    #[error("body is signed by gpg, but a gpg signature covers neither topic nor id")]
    Gpg,
    #[error("body has an unknown kind of signature")]
    UnknownCrypto,
    #[error("body has no topic, so its signature covers no topic")]
    TopicMissing,
    #[error("body has a certificate but no signature")]
    SignatureMissing,
    #[error("body has a signature but no certificate")]
    CertificateMissing,
    #[error("`{key}` of the body is not text")]
    NotText { key: &'static str },
    #[error("`{key}` of the body is not base64")]
    Base64 { key: &'static str },
    #[error("certificate cannot be read: {reason}")]
    CertificateUnreadable { reason: &'static str },
    #[error("certificate is from another CA")]
    OtherCa,
    #[error("certificate is signed by the algorithm {oid}, which is not accepted")]
    CertificateAlgorithm { oid: String },
    #[error("certificate was not signed by the CA that it names")]
    CertificateForged,
    #[error("certificate has the unknown critical extension {oid}")]
    CriticalExtension { oid: String },
    #[error("certificate is not valid before {from} (seconds since 1970)")]
    CertificateNotYetValid { from: i64 },
    #[error("certificate expired at {until} (seconds since 1970)")]
    CertificateExpired { until: i64 },
    #[error("certificate is revoked")]
    CertificateRevoked,
    #[error("the CA is not valid before {from} (seconds since 1970)")]
    CaNotYetValid { from: i64 },
    #[error("the CA expired at {until} (seconds since 1970)")]
    CaExpired { until: i64 },
    #[error("the CA is revoked")]
    CaRevoked,
    #[error("the CRL is not valid before {from} (seconds since 1970)")]
    CrlNotYetValid { from: i64 },
    #[error("the CRL expired at {until} (seconds since 1970)")]
    CrlExpired { until: i64 },
    #[error("certificate has a key that is not accepted: the key must be RSA of 1024 to 8192 bits")]
    Key,
    #[error("certificate has no common name")]
    CommonNameMissing,
    #[error("certificate has a common name that is empty, too long or not printable")]
    BadCommonName,
    #[error("signature was not made for this body with the key of this certificate")]
    SignatureWrong,
    #[error("signer `{signer}` may not publish topic `{topic}`")]
    SignerNotAllowed { signer: String, topic: String },
    #[error("topic `{topic}` is not in the routing policy")]
    TopicNotInPolicy { topic: String },
}

impl SignatureError {
    /// All reasons that [`SignatureError::reason`] returns.
    pub const REASONS: [&'static str; 27] = [
        "unsigned",
        "gpg-signature",
        "unknown-crypto",
        "topic-missing",
        "signature-missing",
        "certificate-missing",
        "credential-not-text",
        "bad-base64",
        "certificate-unreadable",
        "other-ca",
        "certificate-algorithm",
        "certificate-forged",
        "critical-extension",
        "certificate-not-yet-valid",
        "certificate-expired",
        "certificate-revoked",
        "ca-not-yet-valid",
        "ca-expired",
        "ca-revoked",
        "crl-not-yet-valid",
        "crl-expired",
        "bad-key",
        "common-name-missing",
        "bad-common-name",
        "signature-wrong",
        "signer-not-allowed",
        "topic-not-in-policy",
    ];

    /// Returns the reason as a short label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Gpg => "gpg-signature",
            Self::UnknownCrypto => "unknown-crypto",
            Self::TopicMissing => "topic-missing",
            Self::SignatureMissing => "signature-missing",
            Self::CertificateMissing => "certificate-missing",
            Self::NotText { .. } => "credential-not-text",
            Self::Base64 { .. } => "bad-base64",
            Self::CertificateUnreadable { .. } => "certificate-unreadable",
            Self::OtherCa => "other-ca",
            Self::CertificateAlgorithm { .. } => "certificate-algorithm",
            Self::CertificateForged => "certificate-forged",
            Self::CriticalExtension { .. } => "critical-extension",
            Self::CertificateNotYetValid { .. } => "certificate-not-yet-valid",
            Self::CertificateExpired { .. } => "certificate-expired",
            Self::CertificateRevoked => "certificate-revoked",
            Self::CaNotYetValid { .. } => "ca-not-yet-valid",
            Self::CaExpired { .. } => "ca-expired",
            Self::CaRevoked => "ca-revoked",
            Self::CrlNotYetValid { .. } => "crl-not-yet-valid",
            Self::CrlExpired { .. } => "crl-expired",
            Self::Key => "bad-key",
            Self::CommonNameMissing => "common-name-missing",
            Self::BadCommonName => "bad-common-name",
            Self::SignatureWrong => "signature-wrong",
            Self::SignerNotAllowed { .. } => "signer-not-allowed",
            Self::TopicNotInPolicy { .. } => "topic-not-in-policy",
        }
    }
}
