//! Versions of programs and Debian packages.

use std::cmp::Ordering;
use std::fmt;

/// A version. Versions are compared number by number, from the first number on.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    text: String,
    numbers: Vec<u64>,
}

impl Version {
    /// Finds the first version in a text, as programs and dpkg print it: `rustc 1.96.0 (…)`,
    /// `ansible-playbook [core 2.14.18]`, `1:19.1.7-3~deb12u1`.
    ///
    /// A version is a word that begins with a digit. The epoch and the revision of a Debian package are not
    /// part of the version.
    pub(crate) fn find(text: &str) -> Option<Self> {
        let words = text.split_whitespace();
        let words = words.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let upstream = match word.split_once(':') {
            Some((epoch, rest)) if epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => word,
        };
        let upstream = upstream.split(['-', '+']).next()?;
        let numbers = upstream.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
        // A number that is too large is part of a commit hash. The hash comes last, so the rest is ignored.
        let numbers: Vec<u64> = numbers.map_while(|run| run.parse().ok()).collect();
        (!numbers.is_empty()).then(|| Self { text: upstream.to_owned(), numbers })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    /// Compares number by number. `2.14` equals `2.14.0`.
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |version: &Self, at| version.numbers.get(at).copied().unwrap_or(0);
        let length = self.numbers.len().max(other.numbers.len());
        let mut numbers = (0..length).map(|at| number(self, at).cmp(&number(other, at)));
        numbers.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = Version::find(text).map(|version| version.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn version_is_found_in_what_programs_print() {
        check("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)", Some("1.96.0"));
        check("cargo 1.85.0-nightly (d73d2caf9 2024-12-31)", Some("1.85.0"));
        check("Debian LLD 19.1.7 (compatible with GNU linkers)", Some("19.1.7"));
        check("ansible-playbook [core 2.14.18]\n  config file = None", Some("2.14.18"));
        check("ansible-playbook 2.9.27\n", Some("2.9.27"));
        check("v18.20.4", None);
        check("no version", None);
        check("", None);
    }

    #[test]
    fn epoch_and_revision_are_no_part_of_the_version() {
        check("1:19.1.7-3~deb12u1", Some("19.1.7"));
        check("1.96.0+dfsg1-1~deb13u1+b1", Some("1.96.0"));
        check("0.0~git20220510.9886d3d-2", Some("0.0~git20220510.9886d3d"));
    }

    fn order(left: &str, right: &str) -> Ordering {
        Version::find(left).unwrap().cmp(&Version::find(right).unwrap())
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        assert_eq!(order("1.85.0", "1.95"), Ordering::Less);
        assert_eq!(order("1.100.0", "1.95"), Ordering::Greater);
        assert_eq!(order("3.9.13", "3.10"), Ordering::Less);
        assert_eq!(order("2.14", "2.14.0"), Ordering::Equal);
        assert_eq!(order("4.0.5", "3.10.8"), Ordering::Greater);
        let [older, newer] = ["0.0~git20220510.9886d3d", "0.0~git20241209.574b88d"];
        assert_eq!(order(older, newer), Ordering::Less);
        assert_eq!(order(older, "0.0~git20220510"), Ordering::Greater);
    }
}
