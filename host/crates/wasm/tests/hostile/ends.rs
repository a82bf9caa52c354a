//! Guests that end otherwise than by an answer, or by an answer that is none.

use loopabull_model::{Counted, Outcome};

use crate::bed::{Bed, Guest, Trial, count, trap};

const OUTSIDE: &str = "string pointer/length out of bounds of memory";
const LEAVE: &str = "wasm trap: cannot leave component instance";
const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";

fn check(guest: Guest<'_>, expected: &Outcome) {
    Bed::new().check(guest, Trial::default(), expected);
}

fn check_body(body: &str, expected: &str) {
    check(Guest::of(body), &trap(expected));
}

#[test]
fn recursion_without_end_is_a_trap() {
    let deep = "(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))";
    let expected = trap("wasm trap: call stack exhausted");
    check(Guest::of("(call $deep (i64.const 1))").with(deep), &expected);
    let start = "(call $deep (i64.const 1))";
    check(Guest { start, ..Guest::default() }.with(deep), &expected);
}

#[test]
fn a_trap_is_a_trap_wherever_it_is() {
    check_body("unreachable", UNREACHABLE);
    check(Guest { start: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
    check(Guest { realloc: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
    // After `ok`: the message counts as not dealt with.
    check(Guest { post: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
}

#[test]
fn nothing_may_be_called_while_memory_is_allocated_or_given_back() {
    let post = "(drop (call $attempt))";
    check(Guest { post, ..Guest::default() }, &trap(LEAVE));
    let realloc = "(drop (call $attempt))";
    check(Guest { realloc, ..Guest::default() }, &trap(LEAVE));
}

#[test]
fn memory_that_is_not_there_is_no_place_for_the_message() {
    check(
        Guest { realloc: "(return (i32.const -8))", ..Guest::default() },
        &trap("realloc return: beyond end of memory"),
    );
    check(
        Guest { realloc: "(return (i32.const 8193))", ..Guest::default() },
        &trap("realloc return: result not aligned"),
    );
}

#[test]
fn an_exit_has_its_status() {
    let exit = |status: &str| Outcome::Exit {
        status: format!("exit status {status} before it had answered").into(),
    };
    check(Guest::of("(call $exit (i32.const 0))"), &exit("0"));
    check(Guest::of("(call $exit (i32.const 1))"), &exit("1"));
    check(Guest { start: "(call $exit (i32.const 0))", ..Guest::default() }, &exit("0"));
}

#[test]
fn a_reason_of_128_mib_is_not_taken() {
    let guest = Guest {
        pages: "2049",
        ..Guest::of("(return (call $fail (i32.const 1) (i32.const 8192) (i32.const 0x08000000)))")
    };
    let expected = count(Counted::CallBytes, 16 << 20, (16 << 20) + 1);
    Bed::new().check(guest, Trial::default().memory(256 << 20), &expected);
}

#[test]
fn a_long_reason_is_cut() {
    let guest = Guest::of(
        "(memory.fill (i32.const 8192) (i32.const 120) (i32.const 50000))
         (return (call $fail (i32.const 0) (i32.const 8192) (i32.const 50000)))",
    );
    let reason = format!("{}…", "x".repeat(1000));
    check(guest, &Outcome::Retry { reason: reason.into(), after: None });
}

#[test]
fn an_answer_that_is_none_is_a_trap() {
    // The reason lies outside of the memory, is not UTF-8, or is of a third kind.
    check_body("(return (call $fail (i32.const 1) (i32.const 0) (i32.const 65537)))", OUTSIDE);
    check_body("(return (call $fail (i32.const 1) (i32.const -1) (i32.const 4)))", OUTSIDE);
    check_body(
        "(i32.store8 (i32.const 1024) (i32.const 0xff))
         (return (call $fail (i32.const 1) (i32.const 1024) (i32.const 1)))",
        "invalid utf-8 sequence of 1 bytes from index 0",
    );
    check_body(
        "(return (call $fail (i32.const 2) (i32.const 0) (i32.const 0)))",
        "unexpected discriminant: 2",
    );
    check_body("(return (i32.const -4))", "pointer out of bounds of memory");
    check_body("(return (i32.const 3))", "return pointer not aligned");
}

#[test]
fn a_reason_forges_no_line() {
    let guest = Guest::of("(return (call $fail (i32.const 1) (i32.const 1024) (i32.const 9)))")
        .with(r#"(data (i32.const 1024) "a\nb\1b[31m\00")"#);
    check(guest, &Outcome::Reject { reason: r"a\nb\u{1b}[31m\u{0}".into() });
}
