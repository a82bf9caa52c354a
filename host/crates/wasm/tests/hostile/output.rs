//! Tests with guests that exceed the limits on output, log lines and notes. A panic message must be visible
//! even after too much output.

use loopabull_model::{Counted, Outcome};

use crate::test_host::{Guest, TestHost, Trial, count, trap};

const UNREACHABLE: &str = "wasm trap: wasm `unreachable` instruction executed";

/// Returns code that repeats a body this often.
fn times(many: u32, body: &str) -> String {
    format!(
        "(local.set $n (i32.const {many}))
         (loop $again {body}
           (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    )
}

#[test]
fn empty_writes_are_harmless() {
    let write = "(call $write (local.get $stream) (i32.const 1024) (i32.const 0) (i32.const 512))";
    for stream in ["$out", "$err"] {
        let writes = times(2000, write);
        let body = format!("(local.set $stream (call {stream})) {writes} (return (i32.const 0))");
        let attempt = TestHost::new().check(Guest::of(&body), Trial::few(20), &Outcome::Success);
        assert_eq!((attempt.output.text.as_str(), attempt.output.dropped), ("", 0));
    }
}

#[test]
fn excess_output_without_a_newline_is_truncated_and_counted() {
    let write = "(call $write (call $out) (i32.const 1024) (i32.const 4096) (i32.const 512))
                 (call $write (call $err) (i32.const 1024) (i32.const 4096) (i32.const 512))";
    let body = format!(
        "(memory.fill (i32.const 1024) (i32.const 120) (i32.const 4096)) {} (return (i32.const 0))",
        times(100, write)
    );
    let attempt = TestHost::new().check(Guest::of(&body), Trial::default(), &Outcome::Success);
    assert_eq!(attempt.output.text, "x".repeat(1000));
    assert_eq!(attempt.output.dropped, 200 * 4096 - 1000);
}

#[test]
fn invalid_utf8_is_replaced_and_other_bytes_are_kept() {
    let guest = Guest::of(
        "(call $write (call $out) (i32.const 1024) (i32.const 14) (i32.const 512))
         (return (i32.const 0))",
    )
    .with(r#"(data (i32.const 1024) "\1b[31m\00\ff\c3\28\e2\82ok\0d")"#);
    let attempt = TestHost::new().check(guest, Trial::default(), &Outcome::Success);
    // The output keeps control characters. The commands that print the output escape them.
    assert_eq!(attempt.output.text, "\u{1b}[31m\0\u{fffd}\u{fffd}(\u{fffd}ok\r");
    assert_eq!(attempt.output.dropped, 0);
}

#[test]
fn a_terabyte_of_zeroes_is_refused() {
    let body = "(call $zeroes (call $out) (i64.const 0x10000000000) (i32.const 512))";
    let reason = "cannot write more zeroes than `check_write` allows";
    TestHost::new().check(Guest::of(body), Trial::default(), &trap(reason));
}

#[test]
fn an_overlong_blocking_write_is_a_trap() {
    let body = "(call $write (call $out) (i32.const 1024) (i32.const 4097) (i32.const 512))";
    let reason = "Buffer too large for blocking-write-and-flush (expected at most 4096)";
    TestHost::new().check(Guest::of(body), Trial::default(), &trap(reason));
}

#[test]
fn excess_log_lines_are_truncated_and_counted() {
    let log =
        "(call $log (i32.const 2) (i32.const 1024) (i32.const 4) (i32.const 1032) (i32.const 1))";
    let body = format!("{} (return (i32.const 0))", times(5000, log));
    let fields = r#"(data (i32.const 1024) "line\00\00\00\00\00\04\00\00\04\00\00\00\00\04\00\00\02\00\00\00")"#;
    let guest = Guest::of(&body).with(fields);
    let attempt = TestHost::new().check(guest, Trial::few(20), &Outcome::Success);
    let line = "info: line line=li\n";
    assert!(attempt.output.text.starts_with(&line.repeat(52)), "{}", attempt.output.text);
    assert_eq!(attempt.output.text.len() as u64 + attempt.output.dropped, 5000 * 19);
}

#[test]
fn a_log_line_of_128_mib_is_refused() {
    let body = "(call $log (i32.const 4) (i32.const 8192) (i32.const 0x08000000)
                  (i32.const 0) (i32.const 0))";
    let expected = count(Counted::CallBytes, 16 << 20, (16 << 20) + 1);
    let guest = Guest { pages: "2049", ..Guest::of(body) };
    TestHost::new().check(guest, Trial::default().memory(256 << 20), &expected);
}

#[test]
fn the_number_and_length_of_notes_are_limited() {
    let note = "(call $note (i32.const 8192) (i32.const 2) (i32.const 8192) (i32.const 40000))";
    let body = format!(
        "(memory.fill (i32.const 8192) (i32.const 110) (i32.const 40000)) {} (return (i32.const 0))",
        times(100, note)
    );
    let attempt = TestHost::new().check(Guest::of(&body), Trial::few(20), &Outcome::Success);
    assert_eq!(attempt.notes, vec![("nn".to_owned(), "n".repeat(1000)); 32]);
}

/// A panic message as Rust's standard library writes it, at address 16384.
const PANIC: &str = r#"
    (data (i32.const 16384) "\nthread '<unnamed>' (1) panicked at src/lib.rs:7:5:\nno such build: 7\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n")
    (func $rust_panic (unreachable))
    (func $_ZN4core9panicking9panic_fmt17h0123456789abcdefE (call $rust_panic))"#;

fn check_panic(flood: &str) {
    let body = format!(
        "(local.set $stream (call $err))
         (memory.fill (i32.const 1024) (i32.const 120) (i32.const 4096))
         {flood}
         (call $write (local.get $stream) (i32.const 16384) (i32.const 144) (i32.const 512))
         (call $_ZN4core9panicking9panic_fmt17h0123456789abcdefE)"
    );
    let reason = "thread '<unnamed>' (1) panicked at src/lib.rs:7:5: no such build: 7";
    let guest = Guest::of(&body).with(PANIC);
    let attempt = TestHost::new().check(guest, Trial::default(), &trap(reason));
    let backtrace = "backtrace:\n  rust_panic\n  core::panicking::panic_fmt\n  handle\n";
    assert!(attempt.output.text.ends_with(backtrace), "{}", attempt.output.text);
}

#[test]
fn a_panic_message_is_the_reason_even_after_excess_output() {
    check_panic("");
    let write =
        "(call $write (local.get $stream) (i32.const 1024) (i32.const 4096) (i32.const 512))";
    check_panic(&times(50, write));
    // The panic message is on the same line as earlier output.
    let open =
        "(call $write (local.get $stream) (i32.const 1024) (i32.const 3900) (i32.const 512))";
    check_panic(&format!("{open} (i32.store8 (i32.const 16384) (i32.const 32))"));
    // The panic message comes after many complete lines.
    let line = "(i32.store8 (i32.const 1063) (i32.const 10))
                (call $write (local.get $stream) (i32.const 1024) (i32.const 40) (i32.const 512))";
    check_panic(&times(50, line));
}

#[test]
fn standard_error_without_a_panic_is_not_the_reason_of_a_trap() {
    let body =
        "(call $write (call $err) (i32.const 1024) (i32.const 4) (i32.const 512)) unreachable";
    let guest = Guest::of(body).with(r#"(data (i32.const 1024) "bye\n")"#);
    TestHost::new().check(guest, Trial::default(), &trap(UNREACHABLE));
}
