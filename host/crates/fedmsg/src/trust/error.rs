//! The reasons why a CA or a CRL cannot be used.

/// The reason why a CA or a CRL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the CA's certificate cannot be read: {reason}")]
    CaUnreadable { reason: String },
    #[error("the CA's certificate is not a self-signed CA certificate: {reason}")]
    NotACa { reason: &'static str },
    #[error("the CRL cannot be read: {reason}")]
    CrlUnreadable { reason: &'static str },
    #[error("the CRL was not issued by this CA")]
    CrlOfOther,
    #[error("the CRL has no signature of this CA with an accepted algorithm")]
    CrlForged,
    #[error("the CRL has the unsupported extension {oid}")]
    CrlExtension { oid: String },
}
