//! Tests with guests that exceed the limits on messages and state.

use loopabull_model::{Counted, Outcome};

use crate::test_host::{Guest, TestHost, Trial, count};

const DATA: &str =
    r#"(data (i32.const 1024) "a.b.c") (data (i32.const 1040) "key") (data (i32.const 1056) "{}")"#;

/// Code that endlessly publishes `$stream` bytes from address 8192 to the topic `a.b.c`.
const PUBLISH: &str = "(loop $again
    (call $publish (i32.const 1024) (i32.const 5) (i32.const 0) (i32.const 0)
      (i32.const 8192) (local.get $stream) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then
      (return (call $fail (i32.const 1) (i32.load (i32.const 516)) (i32.load (i32.const 520))))))
    (br $again))";

#[test]
fn endless_messages_exceed_their_limit() {
    let body = format!(
        "(i32.store16 (i32.const 8192) (i32.const 0x7d7b)) (local.set $stream (i32.const 2)) {PUBLISH}"
    );
    let expected = count(Counted::Emitted, 100, 101);
    TestHost::new().check(Guest::of(&body).with(DATA), Trial::default(), &expected);
}

#[test]
fn large_messages_exceed_their_limit() {
    // Each message is a JSON string of 2 MiB, including the quotes.
    let body = format!(
        "(memory.fill (i32.const 8192) (i32.const 120) (i32.const 2097152))
         (i32.store8 (i32.const 8192) (i32.const 34))
         (local.set $stream (i32.const 2097152))
         (i32.store8 (i32.const 2105343) (i32.const 34))
         {PUBLISH}"
    );
    let guest = Guest { pages: "33", ..Guest::of(&body).with(DATA) };
    let expected = count(Counted::EmittedBytes, 4 << 20, 2 * (2_097_152 + 5));
    TestHost::new().check(guest, Trial::few(3).memory(4 << 20), &expected);
}

#[test]
fn a_message_beyond_the_limit_is_not_parsed() {
    // The body is 15 MiB of text whose parsed form would take a hundred times as much memory. If the host
    // parsed the body, the error would be that the body is not JSON.
    let body = format!(
        "(memory.fill (i32.const 8192) (i32.const 91) (i32.const 15728640))
         (local.set $stream (i32.const 15728640))
         {PUBLISH}"
    );
    let guest = Guest { pages: "256", ..Guest::of(&body).with(DATA) };
    let expected = count(Counted::EmittedBytes, 4 << 20, 15_728_640 + 5);
    TestHost::new().check(guest, Trial::few(3).memory(16 << 20), &expected);
}

#[test]
fn too_many_headers_are_refused() {
    let publish = |many: u32| {
        format!(
            "(call $publish (i32.const 1024) (i32.const 5) (i32.const 32768) (i32.const {many})
               (i32.const 1056) (i32.const 2) (i32.const 512))
             (return (call $fail (i32.const 1) (i32.load (i32.const 516)) (i32.load (i32.const 520))))"
        )
    };
    let host = TestHost::new();
    let body = publish(1_000_000);
    let guest = Guest { pages: "256", ..Guest::of(&body).with(DATA) };
    let expected = count(Counted::CallBytes, 16 << 20, (16 << 20) + 1);
    host.check(guest, Trial::few(20).memory(16 << 20), &expected);
    let body = publish(65);
    let expected = Outcome::Reject { reason: "a message has at most 64 headers".into() };
    host.check(Guest::of(&body).with(DATA), Trial::default(), &expected);
}

#[test]
fn growing_state_exceeds_its_limit() {
    let body = "(loop $again
        (local.set $n (i32.add (local.get $n) (i32.const 500000)))
        (call $set-state (i32.const 1040) (i32.const 3) (i32.const 8192) (local.get $n) (i32.const 512))
        (br $again))";
    let guest = Guest { pages: "30", ..Guest::of(body).with(DATA) };
    let expected = count(Counted::StateBytes, 1 << 20, 1_500_003);
    TestHost::new().check(guest, Trial::few(3).memory(2 << 20), &expected);
}

/// Code that writes the number `$n` as a key of four bytes at address 1040, and increments `$n`.
const KEY: &str = "
    (i32.store (i32.const 1040) (i32.add (i32.const 0x30303030) (i32.or
      (i32.or (i32.and (local.get $n) (i32.const 15))
        (i32.shl (i32.and (local.get $n) (i32.const 0xf0)) (i32.const 4)))
      (i32.shl (i32.and (local.get $n) (i32.const 0xf00)) (i32.const 8)))))
    (local.set $n (i32.add (local.get $n) (i32.const 1)))";

#[test]
fn endless_keys_exceed_their_limit() {
    let set = format!(
        "(loop $again {KEY}
           (call $set-state (i32.const 1040) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 512))
           (br $again))"
    );
    let get = format!(
        "(loop $again {KEY}
           (call $get-state (i32.const 1040) (i32.const 4) (i32.const 512))
           (br $again))"
    );
    let expected = count(Counted::StateKeys, 1000, 1001);
    let host = TestHost::new();
    host.check(Guest::of(&set), Trial::few(10), &expected);
    host.check(Guest::of(&get), Trial::few(10), &expected);
}
