//! Tests with guests that request too many host resources, or misuse handles.

use loopabull_model::{Counted, Outcome};

use crate::test_host::{Guest, TestHost, Trial, count, trap};

fn check(body: &str, expected: &Outcome) {
    TestHost::new().check(Guest::of(body), Trial::default(), expected);
}

fn check_trap(body: &str, reason: &str) {
    check(body, &trap(reason));
}

#[test]
fn too_many_random_bytes_are_refused() {
    let expected = count(Counted::RandomBytes, 64 << 10, (64 << 10) + 1);
    check("(call $random (i64.const -1) (i32.const 1024))", &expected);
    check("(call $random (i64.const 65537) (i32.const 1024))", &expected);
}

#[test]
fn endless_handles_exceed_their_limit() {
    let expected = count(Counted::Handles, 1000, 1001);
    check("(loop $again (drop (call $out)) (br $again))", &expected);
    check("(loop $again (drop (call $after (i64.const -1))) (br $again))", &expected);
    // These pollables are children of one stream.
    check(
        "(local.set $stream (call $out))
         (loop $again (drop (call $ready (local.get $stream))) (br $again))",
        &expected,
    );
}

#[test]
fn a_pollable_counts_as_often_as_it_is_borrowed() {
    let body = "
        (local.set $stream (call $after (i64.const -1)))
        (loop $again
          (i32.store (i32.add (i32.const 8192) (i32.shl (local.get $n) (i32.const 2)))
            (local.get $stream))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 10000))))
        (call $poll (i32.const 8192) (i32.const 10000) (i32.const 1024))";
    check(body, &count(Counted::Handles, 1000, 1001));
}

#[test]
fn dropping_a_handle_twice_is_a_trap() {
    check_trap(
        "(local.set $stream (call $out))
         (call $drop-stream (local.get $stream))
         (call $drop-stream (local.get $stream))",
        "unknown handle index 1",
    );
}

#[test]
fn using_a_dropped_handle_is_a_trap() {
    check_trap(
        "(local.set $stream (call $after (i64.const 0)))
         (call $drop-pollable (local.get $stream))
         (call $block (local.get $stream))",
        "unknown handle index 1",
    );
}

#[test]
fn using_an_unknown_handle_is_a_trap() {
    check_trap("(call $block (i32.const 7))", "unknown handle index 7");
    check_trap("(call $drop-stream (i32.const 0))", "unknown handle index 0");
    check_trap("(call $drop-stream (i32.const -1))", "unknown handle index 4294967295");
}

#[test]
fn using_a_handle_of_another_type_is_a_trap() {
    let reason = "handle index 1 used with the wrong type, expected guest-defined resource but \
                  found a different guest-defined resource";
    check_trap("(call $drop-stream (call $after (i64.const 0)))", reason);
    check_trap("(call $block (call $out))", reason);
}

#[test]
fn dropping_a_stream_with_a_pollable_is_a_trap() {
    check_trap(
        "(local.set $stream (call $out))
         (drop (call $ready (local.get $stream)))
         (call $drop-stream (local.get $stream))",
        "resource has children",
    );
}

#[test]
fn an_empty_poll_is_a_trap() {
    check_trap("(call $poll (i32.const 0) (i32.const 0) (i32.const 1024))", "empty poll list");
}
