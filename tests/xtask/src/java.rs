//! The Java of this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{command, on_path, output};

/// Where Debian has its versions of Java.
const DEBIAN: &str = "/usr/lib/jvm";
/// Prints where it is and what it is, on its standard error.
const SHOW: &str = r#"exec "$0" -XshowSettings:properties -version 2>&1"#;

/// A Java that can be started.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Java {
    /// What is called `JAVA_HOME`
    pub(crate) home: PathBuf,
    /// As `17.0.15`
    pub(crate) version: String,
}

impl Java {
    /// Returns the first that is new enough: that of `JAVA_HOME`, of the `PATH`, or any of Debian's.
    pub(crate) fn find(least: u32) -> Option<Self> {
        let home = env::var_os("JAVA_HOME").map(|home| program(Path::new(&home)));
        let entries = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        let mut debian: Vec<PathBuf> = entries.map(|entry| program(&entry.path())).collect();
        debian.sort();
        let programs = home.into_iter().chain(on_path("java")).chain(debian);
        programs.filter(|program| program.is_file()).find_map(|program| {
            let settings = output(command("sh").args(["-c", SHOW]).arg(program)).ok()?;
            Self::read(&settings).filter(|java| java.major().is_some_and(|major| major >= least))
        })
    }

    /// Reads what a Java prints of itself.
    fn read(settings: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut pairs = settings.lines().filter_map(|line| line.split_once(" = "));
            pairs.find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
        };
        Some(Self {
            home: PathBuf::from(value("java.home")?),
            version: value("java.version")?.to_owned(),
        })
    }

    /// Returns 17 of `17.0.15`, and 1 of `1.8.0_402`.
    fn major(&self) -> Option<u32> {
        self.version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

fn program(home: &Path) -> PathBuf {
    home.join("bin/java")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: &str, major: Option<u32>) {
        let settings = format!(
            "Property settings:\n    java.class.version = 61.0\n    \
             java.home = /usr/lib/jvm/java-17\n    java.library.path = /usr/lib\n        /lib\n    \
             java.version = {version}\n    java.version.date = 2025-04-15\n"
        );
        let java = Java::read(&settings).unwrap();
        assert_eq!(java.home, Path::new("/usr/lib/jvm/java-17"));
        assert_eq!((java.version.as_str(), java.major()), (version, major));
    }

    #[test]
    fn version_and_home_are_read() {
        check("17.0.15", Some(17));
        check("25-ea", Some(25));
        check("1.8.0_402", Some(1));
    }

    #[test]
    fn what_is_no_java_is_none() {
        assert_eq!(Java::read("Unrecognized option: -XshowSettings:properties"), None);
    }
}
