//! Tests with guests that never end: they compute, copy or wait.

use crate::test_host::{Guest, TestHost, Trial, deadline};

const LOOP: &str = "(loop $forever br $forever)";

fn check(guest: Guest<'_>, trial: Trial) {
    TestHost::new().check(guest, trial, &deadline(trial));
}

/// Checks a guest that waits. This check has fewer rounds than others, because the host ends a waiting guest
/// only some time after the deadline.
fn check_wait(body: &str) {
    check(Guest::of(body), Trial { rounds: 10, ..Trial::short_deadline() });
}

#[test]
fn an_endless_loop_is_ended_wherever_it_is() {
    check(Guest::of(LOOP), Trial::short_deadline());
    check(Guest { start: LOOP, ..Guest::default() }, Trial::short_deadline());
    check(Guest { realloc: LOOP, ..Guest::default() }, Trial::short_deadline());
    check(Guest { post: LOOP, ..Guest::default() }, Trial::short_deadline());
}

#[test]
fn endless_calls_of_limited_depth_are_ended() {
    // Each call returns, so the guest reaches its deadline before it exhausts its stack.
    let fields = "(func $twice (param i32)
        (if (local.get 0) (then
          (call $twice (i32.sub (local.get 0) (i32.const 1)))
          (call $twice (i32.sub (local.get 0) (i32.const 1))))))";
    check(Guest::of("(call $twice (i32.const 100))").with(fields), Trial::short_deadline());
}

/// A copy of the whole memory cannot be interrupted, so the run may exceed its deadline by the duration of
/// one copy.
#[test]
fn an_endless_copy_is_ended() {
    let guest = Guest {
        pages: "1024",
        ..Guest::of(
            "(loop $again
               (memory.copy (i32.const 65536) (i32.const 8192) (i32.const 0x03fe0000))
               (br $again))",
        )
    };
    check(guest, Trial { rounds: 15, ..Trial::short_deadline() }.memory(64 << 20));
}

#[test]
fn endless_calls_of_the_host_are_ended() {
    check(Guest::of("(loop $again (drop (call $attempt)) (br $again))"), Trial::short_deadline());
}

#[test]
fn an_endless_sleep_is_ended() {
    check_wait("(call $block (call $after (i64.const 3600000000000)))");
    check_wait("(call $block (call $after (i64.const -1)))");
}

#[test]
fn an_endless_poll_is_ended() {
    check_wait(
        "(i32.store (i32.const 1024) (call $after (i64.const 3600000000000)))
         (i32.store (i32.const 1028) (call $after (i64.const -1)))
         (call $poll (i32.const 1024) (i32.const 2) (i32.const 1032))",
    );
}

#[test]
fn endless_empty_waits_are_ended() {
    check(
        Guest::of(
            "(loop $again
               (local.set $n (call $after (i64.const 0)))
               (call $block (local.get $n))
               (call $drop-pollable (local.get $n))
               (br $again))",
        ),
        Trial::short_deadline(),
    );
}
