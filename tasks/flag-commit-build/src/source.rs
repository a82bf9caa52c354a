//! The source of a build, for example `git+https://src.fedoraproject.org/rpms/bash.git#1f2e...`.

/// A commit of a package in dist-git.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source<'a> {
    pub(crate) package: &'a str,
    pub(crate) commit: &'a str,
}

impl<'a> Source<'a> {
    /// Returns the dist-git commit that a build request names. Returns `None` for other sources: an uploaded
    /// source package, a fork, another forge, or a branch.
    pub(crate) fn parse(asked: &'a str, dist_git: &str) -> Option<Self> {
        let url = asked.strip_prefix("git+").unwrap_or(asked);
        let path = url.strip_prefix(dist_git)?.strip_prefix("/rpms/")?;
        let (repository, commit) = path.split_once('#')?;
        let package = repository.strip_suffix(".git").unwrap_or(repository);
        let is_package = !package.is_empty() && !package.contains(['/', '?']);
        let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_package && is_commit).then_some(Source { package, commit })
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

    fn check(asked: &str, expected: Option<&str>) {
        let asked = asked.replace("COMMIT", COMMIT);
        let source = Source::parse(&asked, "https://src.fedoraproject.org");
        let expected = expected.map(|package| Source { package, commit: COMMIT });
        assert_eq!(source, expected);
    }

    #[test]
    fn a_commit_in_dist_git_is_found() {
        check("git+https://src.fedoraproject.org/rpms/bash.git#COMMIT", Some("bash"));
    }

    #[test]
    fn the_git_prefix_and_suffix_are_optional() {
        check("https://src.fedoraproject.org/rpms/bash#COMMIT", Some("bash"));
    }

    #[test]
    fn a_fork_is_not_dist_git() {
        check("git+https://src.fedoraproject.org/forks/ada/rpms/bash.git#COMMIT", None);
    }

    #[test]
    fn a_host_with_the_same_prefix_is_not_dist_git() {
        check("git+https://src.fedoraproject.org.example/rpms/bash.git#COMMIT", None);
    }

    #[test]
    fn a_path_with_further_parts_is_not_a_package() {
        check("git+https://src.fedoraproject.org/rpms/../bash.git#COMMIT", None);
    }

    #[test]
    fn a_branch_is_not_a_commit() {
        check("git+https://src.fedoraproject.org/rpms/bash.git#rawhide", None);
    }

    #[test]
    fn an_uploaded_source_package_is_not_dist_git() {
        check("cli-build/1700000000.5.abc/bash-5.2-1.src.rpm", None);
    }
}
