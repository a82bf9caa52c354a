//! Tests of the options: they survive a round trip, and invalid options are refused.

use std::os::unix::ffi::OsStringExt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const WATCHES: [Watch; 3] = [Watch::Nothing, Watch::DeniedPorts, Watch::Everything];

/// Generates arbitrary bytes, and texts that look like options of the launcher.
fn text() -> impl Strategy<Value = OsString> {
    prop_oneof![
        vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
        "-{0,2}[a-z=-]{0,8}".prop_map(OsString::from),
        Just(OsString::from("--")),
        Just(OsString::from(ENV)),
        Just(OsString::from(DIRECTORY)),
        Just(OsString::from("--limit-memory")),
        Just(OsString::from("--help")),
    ]
}

fn absolute() -> impl Strategy<Value = PathBuf> {
    text().prop_map(|rest| {
        let mut path = OsString::from("/");
        path.push(rest);
        PathBuf::from(path)
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = || option::of(any::<u64>());
    (limit(), limit(), limit(), limit(), limit()).prop_map(
        |(open_files, file_size, cpu_seconds, memory, processes)| Limits {
            open_files,
            file_size,
            cpu_seconds,
            memory,
            processes,
        },
    )
}

fn files() -> impl Strategy<Value = Files> {
    (any::<bool>(), vec(absolute(), 0..3), vec(absolute(), 0..3))
        .prop_map(|(system, read, write)| Files { system, read, write })
}

/// Generates a set of required layers and a set of layers that are left out.
fn layers() -> impl Strategy<Value = [BTreeSet<Layer>; 2]> {
    vec(0..3_u8, Layer::ALL.len()).prop_map(|choices| {
        let chosen = |choice| {
            let layers = Layer::ALL.into_iter().zip(&choices);
            layers.filter(move |(_, chosen)| **chosen == choice).map(|(layer, _)| layer)
        };
        let can_be_left_out = |layer: &Layer| !Layer::ALWAYS.contains(layer);
        [chosen(1).collect(), chosen(2).filter(can_be_left_out).collect()]
    })
}

fn confinement() -> impl Strategy<Value = Confinement> {
    let names = vec("[^=\0]{1,8}", 0..4);
    let own = (option::of(absolute()), option::of(absolute()));
    let place = (text().prop_map(PathBuf::from), own, names, files(), vec(any::<u16>(), 0..3));
    let abi = (option::of(any::<u8>()), 0..3_usize);
    // The range excludes 4294967295, which the kernel reserves for "no change".
    let user = option::of((0..u32::MAX, 0..u32::MAX));
    let user = user.prop_map(|user| user.map(|(uid, gid)| User { uid, gid }));
    let user = (user, vec(0..u32::MAX, 0..3));
    let rights = (abi, user, layers(), vec(DESCRIPTORS, 0..3), limits());
    (place, rights, absolute(), vec(text(), 0..5)).prop_map(
        |((directory, (home, tmp), environment, files, tcp), rights, program, arguments)| {
            let (
                (landlock_abi, watched),
                (user, groups),
                [required, without],
                descriptors,
                limits,
            ) = rights;
            Confinement {
                directory,
                home,
                tmp,
                environment,
                files,
                tcp,
                watch: WATCHES[watched],
                landlock_abi,
                user,
                groups,
                required,
                without,
                descriptors,
                limits,
                program,
                arguments,
            }
        },
    )
}

proptest! {
    #[test]
    fn confinement_survives_to_args_and_from_args(confinement in confinement()) {
        let read = Confinement::from_args(confinement.to_args().into_iter());
        prop_assert_eq!(read, Ok(confinement));
    }

    #[test]
    fn arbitrary_arguments_never_cause_a_panic(args in vec(text(), 0..8)) {
        if let Ok(read) = Confinement::from_args(args.into_iter()) {
            prop_assert!(read.program.is_absolute());
        }
    }
}

fn parse(args: &[&str]) -> Result<Confinement, UsageError> {
    Confinement::from_args(args.iter().map(OsString::from))
}

fn refused(args: &[&str], message: &str) {
    let error = parse(args).expect_err("the arguments are refused");
    assert_eq!(error.to_string(), message);
}

#[test]
fn nothing_is_granted_by_default() {
    let read = parse(&["--directory", "/", "--", "/bin/true"]).expect("the arguments are complete");
    assert_eq!(read.files, Files::default());
    assert_eq!(read.tcp, []);
    assert_eq!(read.limits, Limits::none());
}

#[test]
fn options_after_the_program_belong_to_the_program() {
    let read = parse(&["--directory", "/", "--", "/bin/a", "--", "--env"])
        .expect("the arguments are complete");
    assert_eq!(read.arguments, ["--", "--env"]);
    assert_eq!(read.environment, Vec::<String>::new());
}

#[test]
fn unknown_option_is_named() {
    refused(&["--frob", "--", "/bin/a"], "unknown option `--frob`");
}

#[test]
fn program_without_two_dashes_is_refused() {
    refused(&["/bin/a"], "unexpected argument `/bin/a` before `--`");
}

#[test]
fn option_without_value_is_refused() {
    refused(&["--env"], "the value of option `--env` is missing");
}

#[test]
fn second_limit_does_not_loosen_the_first() {
    refused(&["--limit-memory", "1", "--limit-memory", "2"], "option `--limit-memory` is repeated");
}

#[test]
fn limit_with_a_unit_is_refused() {
    refused(&["--limit-memory", "1G"], "option `--limit-memory` needs a whole number, not `1G`");
}

#[test]
fn limit_beyond_64_bits_is_refused() {
    refused(
        &["--limit-file-size", "18446744073709551616"],
        "option `--limit-file-size` needs a whole number, not `18446744073709551616`",
    );
}

#[test]
fn value_of_a_variable_is_refused_and_not_printed() {
    refused(
        &["--env", "TOKEN=secret"],
        "option `--env` needs only the name `TOKEN`, without a value",
    );
}

#[test]
fn empty_name_is_refused() {
    refused(&["--env", ""], "option `--env` needs the name of a variable, not ``");
}

#[test]
fn directory_is_required() {
    refused(&["--", "/bin/a"], "option `--directory` is missing");
}

#[test]
fn program_is_required() {
    refused(&["--directory", "/", "--"], "the program after `--` is missing");
    refused(&["--directory", "/"], "the program after `--` is missing");
}

#[test]
fn relative_program_is_refused() {
    refused(&["--directory", "/bin", "--", "./true"], "path `./true` is not absolute");
}

#[test]
fn unknown_layer_is_named() {
    refused(&["--require", "walls"], "unknown layer `walls`");
}

#[test]
fn required_layer_cannot_be_left_out() {
    refused(
        &["--without", "files", "--", "/bin/a"],
        "the required layer `files` cannot be left out",
    );
    let both = ["--require", "tcp", "--without", "tcp", "--", "/bin/a"];
    refused(&both, "the required layer `tcp` cannot be left out");
}

#[test]
fn user_is_given_as_two_numbers() {
    refused(&["--user", "root"], "option `--user` needs `UID:GID` in numbers, not `root`");
}

#[test]
fn number_that_means_no_user_is_refused() {
    let message = "`4294967295` is not a valid user or group id";
    refused(&["--user", "4294967295:0"], message);
    refused(&["--user", "0:4294967295"], message);
    let args = ["--user", "4294967294:4294967294", "--directory", "/", "--", "/bin/true"];
    assert_eq!(
        parse(&args).expect("the arguments are complete").user,
        Some(User { uid: u32::MAX - 1, gid: u32::MAX - 1 })
    );
}

#[test]
fn relative_grant_is_refused() {
    refused(&["--read", "etc"], "path `etc` is not absolute");
}
