//! A Pagure flag: its content and its id. A flag replaces an earlier flag with the same id.

/// The content of a flag.
#[derive(Debug)]
pub(crate) struct Flag {
    /// The status, as Pagure defines it: `pending`, `success`, `failure` or `error`.
    pub(crate) status: &'static str,
    /// The percentage: 100 for a success, 0 for a failure, and `None` without a result.
    pub(crate) percent: Option<&'static str>,
    pub(crate) comment: String,
}

impl Flag {
    pub(crate) fn pending(comment: &str) -> Self {
        Flag { status: "pending", percent: None, comment: comment.to_owned() }
    }

    pub(crate) fn success(comment: &str) -> Self {
        Flag { status: "success", percent: Some("100"), comment: comment.to_owned() }
    }

    /// Returns the flag for tests that ran and failed.
    pub(crate) fn failure(comment: &str) -> Self {
        Flag { status: "failure", percent: Some("0"), comment: comment.to_owned() }
    }

    /// Returns the flag for tests that could not run.
    pub(crate) fn error(reason: Option<&str>) -> Self {
        let comment = reason.unwrap_or("could not run").to_owned();
        Flag { status: "error", percent: None, comment }
    }
}

/// Returns the id of a flag. Equal `parts` have equal ids. The id has 32 characters, which is Pagure's
/// maximum. The id is a 128-bit FNV-1a hash. A cryptographic hash is not needed, because nobody gains from a
/// collision.
pub(crate) fn uid(parts: &[&str]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::uid;

    #[test]
    fn an_id_has_32_characters() {
        assert_eq!(uid(&[]).len(), 32);
        assert_eq!(uid(&["https://src.fedoraproject.org/rpms/bull", "7"]).len(), 32);
    }

    #[test]
    fn ids_are_equal_only_for_equal_parts() {
        assert_eq!(uid(&["ab", "c"]), uid(&["ab", "c"]));
        assert_ne!(uid(&["ab", "c"]), uid(&["a", "bc"]));
        assert_ne!(uid(&["ab"]), uid(&["ab", ""]));
    }
}
