//! Guests that never end: computing, copying or waiting.

use crate::bed::{Bed, Guest, Trial, deadline};

const LOOP: &str = "(loop $for_ever br $for_ever)";

fn check(guest: Guest<'_>, trial: Trial) {
    Bed::new().check(guest, trial, &deadline(trial));
}

/// Waits are ended by the host's clock only, some time after the deadline: fewer rounds.
fn check_wait(body: &str) {
    check(Guest::of(body), Trial { rounds: 10, ..Trial::of_the_clock() });
}

#[test]
fn an_endless_loop_ends_wherever_it_is() {
    check(Guest::of(LOOP), Trial::of_the_clock());
    check(Guest { start: LOOP, ..Guest::default() }, Trial::of_the_clock());
    check(Guest { realloc: LOOP, ..Guest::default() }, Trial::of_the_clock());
    check(Guest { post: LOOP, ..Guest::default() }, Trial::of_the_clock());
}

#[test]
fn recursion_without_depth_ends() {
    // Each call returns, so that it is the time that ends it and not the stack.
    let fields = "(func $twice (param i32)
        (if (local.get 0) (then
          (call $twice (i32.sub (local.get 0) (i32.const 1)))
          (call $twice (i32.sub (local.get 0) (i32.const 1))))))";
    check(Guest::of("(call $twice (i32.const 100))").with(fields), Trial::of_the_clock());
}

/// A copy of the whole memory cannot be interrupted, so the run may go on for as long as one takes;
/// then it ends.
#[test]
fn an_endless_copy_ends() {
    let guest = Guest {
        pages: "1024",
        ..Guest::of(
            "(loop $again
               (memory.copy (i32.const 65536) (i32.const 8192) (i32.const 0x03fe0000))
               (br $again))",
        )
    };
    check(guest, Trial { rounds: 15, ..Trial::of_the_clock() }.memory(64 << 20));
}

#[test]
fn an_endless_run_of_calls_ends() {
    check(Guest::of("(loop $again (drop (call $attempt)) (br $again))"), Trial::of_the_clock());
}

#[test]
fn a_sleep_for_ever_ends() {
    check_wait("(call $block (call $after (i64.const 3600000000000)))");
    check_wait("(call $block (call $after (i64.const -1)))");
}

#[test]
fn a_poll_for_ever_ends() {
    check_wait(
        "(i32.store (i32.const 1024) (call $after (i64.const 3600000000000)))
         (i32.store (i32.const 1028) (call $after (i64.const -1)))
         (call $poll (i32.const 1024) (i32.const 2) (i32.const 1032))",
    );
}

#[test]
fn a_storm_of_waits_for_nothing_ends() {
    check(
        Guest::of(
            "(loop $again
               (local.set $n (call $after (i64.const 0)))
               (call $block (local.get $n))
               (call $drop-pollable (local.get $n))
               (br $again))",
        ),
        Trial::of_the_clock(),
    );
}
