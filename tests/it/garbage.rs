//! Invalid messages on the fedmsg socket. Each is counted under its reason, and the next message is run.

use loopabull_fedmsg::{Rejection, SignatureError};

use crate::test_host::{Publisher, TestHost, message, wait_for};

#[test]
fn every_piece_of_garbage_is_counted_and_the_next_message_is_run() {
    let host = TestHost::new();
    host.add_guest("good", "org.example.good", "", "i32.const 0");
    let publisher = Publisher::start();
    let daemon = host.start(&["--unsigned", "--fedmsg", &publisher.endpoint]);
    publisher.wait_for_subscriber();

    let good = message("m-good", "org.example.good", "{}");
    let large = format!(r#"{{"msg":"{}"}}"#, "a".repeat(50 << 20));
    let deep = format!(r#"{{"msg":{}}}"#, "[".repeat(100_000));
    // JSON texts inside the strings of other JSON texts. A parser that counts the depth of each text from
    // zero would overflow the stack.
    let mut reserved = "[".repeat(120) + &"]".repeat(120);
    for _ in 0..12 {
        let text = serde_json::to_string(&reserved).unwrap();
        let layer = format!(r#"{{"$serde_json::private::RawValue":{text}}}"#);
        reserved = "[".repeat(100) + &layer + &"]".repeat(100);
    }
    let reserved = format!(r#"{{"msg":{reserved}}}"#);
    let headers = format!(r#"{{"msg":1,"headers":{{"h":"{}"}}}}"#, "x".repeat(100_000));
    let long_topic = "a".repeat(300);
    let body = good.as_bytes();
    let garbage: [(&str, &[&[u8]]); 20] = [
        ("frame-count", &[b"org.example.good"]),
        ("frame-count", &[b"org.example.good", body, b"more"]),
        ("topic-not-utf8", &[b"\xff\xfe", body]),
        ("bad-topic", &[b"org/example", body]),
        ("bad-topic", &[b"../../../etc/passwd", body]),
        ("bad-topic", &[b"org..example", body]),
        ("bad-topic", &[b"org.\0", body]),
        ("bad-topic", &[long_topic.as_bytes(), body]),
        ("bad-topic", &[b"", body]),
        ("body-not-utf8", &[b"org.example.good", b"{\"msg\":\"\xff\"}"]),
        ("body-not-json", &[b"org.example.good", b"{"]),
        ("body-not-json", &[b"org.example.good", b""]),
        ("body-too-large", &[b"org.example.good", large.as_bytes()]),
        ("body-too-deep", &[b"org.example.good", deep.as_bytes()]),
        ("lone-surrogate", &[b"org.example.good", br#"{"msg":"\ud800"}"#]),
        ("reserved-key", &[b"org.example.good", reserved.as_bytes()]),
        ("body-shape", &[b"org.example.good", b"[]"]),
        ("headers-too-large", &[b"org.example.good", headers.as_bytes()]),
        ("topic-mismatch", &[b"org.example.other", body]),
        ("bad-message-id", &[b"org.example.good", br#"{"msg":1,"msg_id":"a b"}"#]),
    ];
    for (number, (_, frames)) in garbage.iter().enumerate() {
        publisher.send(frames);
        let id = format!("m-{number}");
        let good = message(&id, "org.example.good", "{}");
        publisher.send(&[b"org.example.good", good.as_bytes()]);
    }
    wait_for("the runs of the good messages", || (daemon.count("runs") >= 20).then_some(()));
    // The last reasons are about signatures. This daemon checks no signatures, so the test skips them.
    let unsigned = Rejection::REASONS.len() - SignatureError::REASONS.len();
    for reason in &Rejection::REASONS[..unsigned] {
        let expected = garbage.iter().filter(|(name, _)| name == reason).count();
        assert!(expected > 0, "no piece of garbage has the reason {reason}");
        let name = format!("loopabull_envelopes_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(daemon.metric(&name), Some(expected as f64), "{reason}");
    }
    daemon.stop();
    assert_eq!(host.tally(), [("good success".to_owned(), 20)].into());
}
