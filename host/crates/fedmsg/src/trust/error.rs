//! The reasons why a CA or a CRL cannot be used.

/// The reason why a CA or a CRL cannot be used.
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
    #[error("the CRL is not signed by this CA, or by an algorithm that is not accepted")]
    CrlForged,
    #[error("the CRL has the unknown extension {oid}")]
    CrlExtension { oid: String },
}
