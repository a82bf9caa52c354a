//! Tests with guests that end without a result, or with an invalid result.

use loopabull_model::{Counted, Outcome};

use crate::test_host::{Guest, TestHost, Trial, count, trap};

const OUTSIDE: &str = "string pointer/length out of bounds of memory";
const LEAVE: &str = "wasm trap: cannot leave component instance";
const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";

fn check(guest: Guest<'_>, expected: &Outcome) {
    TestHost::new().check(guest, Trial::default(), expected);
}

fn check_body(body: &str, expected: &str) {
    check(Guest::of(body), &trap(expected));
}

#[test]
fn endless_recursion_is_a_trap() {
    let deep = "(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))";
    let expected = trap("wasm trap: call stack exhausted");
    check(Guest::of("(call $deep (i64.const 1))").with(deep), &expected);
    let start = "(call $deep (i64.const 1))";
    check(Guest { start, ..Guest::default() }.with(deep), &expected);
}

#[test]
fn a_trap_is_reported_wherever_it_happens() {
    check_body("unreachable", UNREACHABLE);
    check(Guest { start: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
    check(Guest { realloc: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
    // The trap comes after the guest returned `ok`, and the run fails nevertheless.
    check(Guest { post: "unreachable", ..Guest::default() }, &trap(UNREACHABLE));
}

#[test]
fn imports_cannot_be_called_from_realloc_and_post_return() {
    let post = "(drop (call $attempt))";
    check(Guest { post, ..Guest::default() }, &trap(LEAVE));
    let realloc = "(drop (call $attempt))";
    check(Guest { realloc, ..Guest::default() }, &trap(LEAVE));
}

#[test]
fn an_invalid_allocation_for_the_message_is_a_trap() {
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
fn an_exit_is_reported_with_its_status() {
    let exit = |status: &str| Outcome::Exit {
        status: format!("exit status {status} before it returned a result").into(),
    };
    check(Guest::of("(call $exit (i32.const 0))"), &exit("0"));
    check(Guest::of("(call $exit (i32.const 1))"), &exit("1"));
    check(Guest { start: "(call $exit (i32.const 0))", ..Guest::default() }, &exit("0"));
}

#[test]
fn a_reason_of_128_mib_is_refused() {
    let guest = Guest {
        pages: "2049",
        ..Guest::of("(return (call $fail (i32.const 1) (i32.const 8192) (i32.const 0x08000000)))")
    };
    let expected = count(Counted::CallBytes, 16 << 20, (16 << 20) + 1);
    TestHost::new().check(guest, Trial::default().memory(256 << 20), &expected);
}

#[test]
fn a_long_reason_is_truncated() {
    let guest = Guest::of(
        "(memory.fill (i32.const 8192) (i32.const 120) (i32.const 50000))
         (return (call $fail (i32.const 0) (i32.const 8192) (i32.const 50000)))",
    );
    let reason = format!("{}…", "x".repeat(1000));
    check(guest, &Outcome::Retry { reason: reason.into(), after: None });
}

#[test]
fn an_invalid_result_is_a_trap() {
    // The reason is outside of the memory, is not UTF-8, or the failure has an unknown kind.
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
fn control_characters_in_a_reason_are_escaped() {
    let guest = Guest::of("(return (call $fail (i32.const 1) (i32.const 1024) (i32.const 9)))")
        .with(r#"(data (i32.const 1024) "a\nb\1b[31m\00")"#);
    check(guest, &Outcome::Reject { reason: r"a\nb\u{1b}[31m\u{0}".into() });
}
