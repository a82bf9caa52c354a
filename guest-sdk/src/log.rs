//! Log lines, which are stored with the run.
//!
//! This module has the five log macros of this crate, one for each level. The host stores the lines and
//! limits their total size.

use std::fmt::Display;

use crate::host;

pub use crate::bindings::loopabull::task::log::Level;

/// Writes a log line. Only the log macros call this function.
#[doc(hidden)]
pub fn write(level: Level, text: String, fields: &[(&str, &dyn Display)]) {
    let fields: Vec<(String, String)> =
        fields.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
    host::log::write(level, &text, &fields);
}

/// Writes a log line with details for the author of the task. See [`info!`](crate::info) for the
/// syntax.
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::__line!(Trace [] $($line)+) };
}

/// Writes a log line that explains a decision of the task. See [`info!`](crate::info) for the syntax.
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::__line!(Debug [] $($line)+) };
}

/// Writes a log line about the result for a message.
///
/// The fields come first and are for machines. The text is a format string with its arguments, and is for
/// people. A field is written `name = value`, and its value must implement `Display`. With a `?` before the
/// value, its `Debug` text is used. `name` alone means `name = name`.
///
/// ```
/// # use loopabull_task::info;
/// # let (package, build, tags) = ("kernel", 7, ["f44"]);
/// info!("the build was skipped");
/// info!("build {build} of {} is done", package);
/// info!(package, build.id = build, tags = ?tags, "the build is done");
/// ```
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::__line!(Info [] $($line)+) };
}

/// Writes a log line about a problem that needs attention eventually. See [`info!`](crate::info) for
/// the syntax.
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::__line!(Warn [] $($line)+) };
}

/// Writes a log line about a problem that needs attention now. See [`info!`](crate::info) for the
/// syntax.
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::__line!(Error [] $($line)+) };
}

/// Expands to a call of `log::write`. Each step of the recursion converts one field, and the last step
/// converts the text.
#[doc(hidden)]
#[macro_export]
macro_rules! __line {
    ($level:ident [$($fields:tt)*] $text:literal $(, $($arguments:tt)*)?) => {
        $crate::log::write(
            $crate::log::Level::$level,
            ::std::format!($text $(, $($arguments)*)?),
            &[$($fields)*],
        )
    };
    ($level:ident [$($fields:tt)*] $($key:ident).+ = ?$value:expr, $($rest:tt)+) => {
        $crate::__line!($level [
            $($fields)*
            ($crate::__name!($($key).+), &::std::format_args!("{:?}", $value) as &dyn ::std::fmt::Display),
        ] $($rest)+)
    };
    ($level:ident [$($fields:tt)*] $($key:ident).+ = $value:expr, $($rest:tt)+) => {
        $crate::__line!($level [
            $($fields)*
            ($crate::__name!($($key).+), &$value as &dyn ::std::fmt::Display),
        ] $($rest)+)
    };
    ($level:ident [$($fields:tt)*] ?$key:ident, $($rest:tt)+) => {
        $crate::__line!($level [$($fields)*] $key = ?$key, $($rest)+)
    };
    ($level:ident [$($fields:tt)*] $key:ident, $($rest:tt)+) => {
        $crate::__line!($level [$($fields)*] $key = $key, $($rest)+)
    };
}

/// Returns the name of a field: `a.b` for the two identifiers `a` and `b`.
#[doc(hidden)]
#[macro_export]
macro_rules! __name {
    ($first:ident $(. $rest:ident)*) => {
        ::std::concat!(::std::stringify!($first) $(, ".", ::std::stringify!($rest))*)
    };
}

#[cfg(test)]
mod tests {
    use crate::{Message, test};

    fn check(write: impl FnOnce(), expected: &str) {
        let run = test::message("org.example", "{}").run(|_: Message| {
            write();
            Ok(())
        });
        assert_eq!(run.log[0].to_string(), expected);
    }

    #[test]
    fn the_text_is_a_format_string() {
        let name = "bull";
        check(|| crate::info!("{name} {:>3} {last}", 7, last = "x"), "info: bull   7 x");
        check(|| crate::warn!("plain",), "warn: plain");
    }

    #[test]
    fn fields_precede_the_text() {
        let (package, builds) = ("bull".to_owned(), [1, 2]);
        check(
            || {
                crate::debug!(
                    package,
                    build.id = builds[0] + 1,
                    ?builds,
                    all = ?builds,
                    name = package.as_str(),
                    "{} of {package}",
                    builds.len(),
                );
            },
            "debug: 2 of bull package=bull build.id=2 builds=[1, 2] all=[1, 2] name=bull",
        );
    }

    #[test]
    fn a_field_value_is_not_moved() {
        struct Build {
            name: String,
        }
        let build = Build { name: "bull".to_owned() };
        check(|| crate::error!(name = build.name, "lost"), "error: lost name=bull");
        assert_eq!(build.name, "bull");
        check(|| crate::trace!("checked"), "trace: checked");
    }
}
