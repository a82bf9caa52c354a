//! The search for a Java runtime on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{command, on_path, output};

/// The folder of Debian's Java runtimes.
const DEBIAN: &str = "/usr/lib/jvm";
/// The shell script that prints the properties of a Java runtime. It redirects standard error, to which Java
/// writes them.
const SHOW: &str = r#"exec "$0" -XshowSettings:properties -version 2>&1"#;

/// A Java runtime.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Java {
    /// The value for `JAVA_HOME`
    pub(crate) home: PathBuf,
    /// The version, such as `17.0.15`
    pub(crate) version: String,
}

impl Java {
    /// Returns the first runtime that is new enough, from `JAVA_HOME`, the `PATH` or Debian's folder. `least`
    /// is the smallest major version.
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

    /// Parses the properties that a Java runtime prints.
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

    /// Returns the major version: 17 for `17.0.15`, and 1 for `1.8.0_402`.
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
    fn the_version_and_the_home_are_parsed() {
        check("17.0.15", Some(17));
        check("25-ea", Some(25));
        check("1.8.0_402", Some(1));
    }

    #[test]
    fn the_output_of_another_program_is_not_a_java_runtime() {
        assert_eq!(Java::read("Unrecognized option: -XshowSettings:properties"), None);
    }
}
