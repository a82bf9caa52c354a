//! Tests with guests that disclose their secrets. Secrets are masked in the record of a run, and refused in
//! messages and state. The secrets are `hunter22` and a text of three lines; see `test_host.rs`.

use loopabull_model::Outcome;

use crate::test_host::{Guest, TestHost, Trial, trap};

/// Returns code that writes this many `x` and then the secret `token` to memory, from address 16384 on. The
/// guest's allocator returns memory from address 8192 on.
fn secret_after(many: u32) -> String {
    format!(
        "(call $secret (i32.const 1024) (i32.const 5) (i32.const 512))
         (memory.fill (i32.const 16384) (i32.const 120) (i32.const {many}))
         (memory.copy (i32.const {}) (i32.load (i32.const 516)) (i32.load (i32.const 520)))",
        16384 + many
    )
}

fn check(body: &str, expected: &Outcome) -> loopabull_model::Attempt {
    let fields = r#"(data (i32.const 1024) "token") (data (i32.const 1040) "a.hunter22")
        (data (i32.const 1056) "{}") (data (i32.const 1064) "thread 'main' panicked at lib.rs:1:1:\nno hunter22")"#;
    let guest = Guest { pages: "2", ..Guest::of(body).with(fields) };
    TestHost::new().check(guest, Trial { output: 2000, ..Trial::few(10) }, expected)
}

#[test]
fn a_secret_is_masked_in_output_and_notes() {
    let body = format!(
        "{} (call $write (call $out) (i32.const 16384) (i32.const 10) (i32.const 512))
         (call $log (i32.const 2) (i32.const 16384) (i32.const 10) (i32.const 0) (i32.const 0))
         (call $note (i32.const 16386) (i32.const 8) (i32.const 16384) (i32.const 10))
         (return (i32.const 0))",
        secret_after(2)
    );
    let attempt = check(&body, &Outcome::Success);
    assert_eq!(attempt.output.text, "xx[secret]info: xx[secret]\n");
    assert_eq!(attempt.notes, [("[secret]".to_owned(), "xx[secret]".to_owned())]);
}

#[test]
fn a_secret_is_masked_in_reasons() {
    let body = format!(
        "{} (return (call $fail (i32.const 0) (i32.const 16384) (i32.const 10)))",
        secret_after(2)
    );
    check(&body, &Outcome::Retry { reason: "xx[secret]".into(), after: None });
    let body = "(call $write (call $err) (i32.const 1064) (i32.const 49) (i32.const 512))
                unreachable";
    check(body, &trap("thread 'main' panicked at lib.rs:1:1: no [secret]"));
}

#[test]
fn a_truncated_text_contains_no_part_of_a_secret() {
    // A reason and a note are limited to 1000 characters. The output of this guest is limited to 2000 bytes.
    let xs = "x".repeat(996);
    let body = format!(
        "{} (return (call $fail (i32.const 1) (i32.const 16384) (i32.const 1004)))",
        secret_after(996)
    );
    check(&body, &Outcome::Reject { reason: format!("{xs}[sec…").into() });
    let body = format!(
        "{} (call $note (i32.const 1024) (i32.const 5) (i32.const 16384) (i32.const 1004))
         (return (i32.const 0))",
        secret_after(996)
    );
    let attempt = check(&body, &Outcome::Success);
    assert_eq!(attempt.notes, [("token".to_owned(), format!("{xs}[sec"))]);
    let body = format!(
        "{} (call $write (call $out) (i32.const 16384) (i32.const 2008) (i32.const 512))
         (return (i32.const 0))",
        secret_after(1996)
    );
    let attempt = check(&body, &Outcome::Success);
    assert_eq!(attempt.output.text, format!("{}[secret]", "x".repeat(1996)));
}

#[test]
fn a_multiline_secret_is_masked_in_a_note() {
    // Newlines are removed from notes. Secrets must be masked before that.
    let body = "(call $secret (i32.const 1100) (i32.const 3) (i32.const 512))
        (call $note (i32.const 1024) (i32.const 5) (i32.load (i32.const 516)) (i32.load (i32.const 520)))
        (return (i32.const 0))";
    let guest =
        Guest::of(body).with(r#"(data (i32.const 1024) "token") (data (i32.const 1100) "key")"#);
    let attempt = TestHost::new().check(guest, Trial::few(10), &Outcome::Success);
    assert_eq!(attempt.notes, [("token".to_owned(), "[secret]".to_owned())]);
}

#[test]
fn a_message_that_contains_a_secret_is_refused() {
    let refused = Outcome::Reject { reason: "the message contains the secret `token`".into() };
    let end =
        "(return (call $fail (i32.const 1) (i32.load (i32.const 516)) (i32.load (i32.const 520))))";
    // The secret is in the body as a JSON string, then in a header, then in the topic.
    let body = format!(
        "{} (i32.store8 (i32.const 16384) (i32.const 34)) (i32.store8 (i32.const 16394) (i32.const 34))
         (call $publish (i32.const 1040) (i32.const 1) (i32.const 0) (i32.const 0)
           (i32.const 16384) (i32.const 11) (i32.const 512)) {end}",
        secret_after(2)
    );
    check(&body, &refused);
    let body = format!(
        "{} (i32.store (i32.const 2048) (i32.const 1024)) (i32.store (i32.const 2052) (i32.const 5))
         (i32.store (i32.const 2056) (i32.const 16384)) (i32.store (i32.const 2060) (i32.const 10))
         (call $publish (i32.const 1040) (i32.const 1) (i32.const 2048) (i32.const 1)
           (i32.const 1056) (i32.const 2) (i32.const 512)) {end}",
        secret_after(2)
    );
    check(&body, &refused);
    let body = format!(
        "(call $publish (i32.const 1040) (i32.const 10) (i32.const 0) (i32.const 0)
           (i32.const 1056) (i32.const 2) (i32.const 512)) {end}"
    );
    check(&body, &refused);
}

#[test]
fn state_that_contains_a_secret_is_refused() {
    let refused = Outcome::Reject { reason: "the value contains the secret `token`".into() };
    let end =
        "(return (call $fail (i32.const 1) (i32.load (i32.const 516)) (i32.load (i32.const 520))))";
    let value = format!(
        "{} (call $set-state (i32.const 1024) (i32.const 5) (i32.const 16384) (i32.const 10)
          (i32.const 512)) {end}",
        secret_after(2)
    );
    check(&value, &refused);
    let key = format!(
        "(call $set-state (i32.const 1040) (i32.const 10) (i32.const 0) (i32.const 0)
          (i32.const 512)) {end}"
    );
    check(&key, &refused);
}
