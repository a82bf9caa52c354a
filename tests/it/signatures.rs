//! Who may come in: messages that a trusted publisher has signed for their topic, and no others.

use loopabull_testbed::{FedmsgPublisher, Pki, python};
use serde_json::Value;

use crate::bed::{Bed, Daemon, Publisher, text, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// A bed with a playbook that says who has signed, and a CA with a publisher.
struct Site {
    bed: Bed,
    pki: Pki,
}

impl Site {
    fn new() -> Self {
        let bed = Bed::new();
        bed.add_guest("hello", TOPIC, "", "i32.const 0");
        bed.add_guest("other", "org.example.prod.demo.other", "", "i32.const 0");
        let pki = Pki::new();
        pki.leaf("signer.example.org", 5);
        pki.revoke(&[], 30);
        Self { bed, pki }
    }

    fn start(&self, arguments: &[&str], settings: &str) -> Daemon {
        let file = |name: &str| self.pki.file(name).display().to_string();
        let files = format!("ca = '{}'\ncrl = '{}'\n", file("ca.crt"), file("crl.pem"));
        self.bed.write("loopabull.toml", format!("[fedmsg]\n{files}{settings}\n"));
        self.bed.start(&[&["--config", "loopabull.toml"], arguments].concat())
    }

    fn publisher(&self) -> FedmsgPublisher {
        FedmsgPublisher::start_signed(&self.pki, "signer.example.org")
    }
}

fn rejected(daemon: &Daemon, reason: &str) -> f64 {
    let name = format!("loopabull_envelopes_rejected_total{{reason=\"{reason}\"}}");
    daemon.metric(&name).unwrap_or_else(|| panic!("there is no reason {reason}"))
}

/// Publishes until something is counted: what a publisher sends before the subscription is lost.
fn publish_until(publisher: &mut FedmsgPublisher, what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || {
        publisher.publish("demo", "hello", "{}", 1);
        is_so().then_some(())
    });
}

#[test]
fn signed_messages_come_in_and_others_do_not() {
    let site = Site::new();
    site.bed.add_playbook(
        TOPIC,
        &format!("topics = ['{TOPIC}']"),
        "    - debug: { msg: 'signed by {{ loopabull.signer }}' }\n",
    );
    let (mut signed, mut unsigned) = (site.publisher(), FedmsgPublisher::start());
    let endpoints = [signed.endpoint(), unsigned.endpoint()];
    let daemon = site.start(&["--fedmsg", &endpoints[0], "--fedmsg", &endpoints[1]], "");
    publish_until(&mut unsigned, "an unsigned message", || rejected(&daemon, "unsigned") > 0.0);
    assert_eq!(daemon.count("accepted"), 0);
    publish_until(&mut signed, "a signed message", || daemon.count("runs") > 1);
    daemon.wait_until_idle();
    daemon.stop();
    let runs = site.bed.runs();
    let said: Vec<_> = runs.iter().filter(|run| run.task.as_str() == TOPIC).collect();
    assert!(!said.is_empty());
    assert!(said.iter().all(|run| run.output.text.contains("signed by signer.example.org")));
}

/// The old program took the topic of the envelope, which nobody signs: whoever repeated a message under
/// another started another playbook.
#[test]
fn a_signed_message_under_another_topic_is_refused() {
    let site = Site::new();
    let mut signed = site.publisher();
    let listener = zmq::Context::new().socket(zmq::SUB).unwrap();
    listener.set_subscribe(b"").unwrap();
    listener.connect(&signed.endpoint()).unwrap();
    let frames = wait_for("a message", || {
        signed.publish("demo", "hello", r#"{"n": 1}"#, 1);
        listener.recv_multipart(zmq::DONTWAIT).ok()
    });
    let publisher = Publisher::start();
    let daemon = site.start(&["--fedmsg", &publisher.endpoint], "");
    publisher.wait_for_subscriber();
    let body = String::from_utf8(frames[1].clone()).unwrap();
    let tampered = body.replace("\"n\":1", "\"n\":2");
    assert_ne!(body, tampered);
    publisher.send(&[b"org.example.prod.demo.other", body.as_bytes()]);
    publisher.send(&[TOPIC.as_bytes(), tampered.as_bytes()]);
    publisher.send(&[TOPIC.as_bytes(), body.as_bytes()]);
    wait_for("the run", || (daemon.count("runs") > 0).then_some(()));
    assert_eq!(rejected(&daemon, "topic-mismatch"), 1.0);
    assert_eq!(rejected(&daemon, "signature-wrong"), 1.0);
    daemon.stop();
    assert_eq!(site.bed.tally(), [("hello success".to_owned(), 1)].into());
}

#[test]
fn what_is_revoked_is_noticed_and_an_expired_list_refuses_all() {
    let site = Site::new();
    let mut signed = site.publisher();
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], "");
    let read_again = |times: usize| {
        daemon.signal("HUP");
        wait_for("the files to be read", || {
            let count =
                site.bed.log().matches("read the CA, its CRL and the routing policy again").count();
            (count >= times).then_some(())
        });
    };
    publish_until(&mut signed, "a message", || daemon.count("accepted") > 0);
    site.pki.revoke(&[5], 30);
    read_again(1);
    publish_until(&mut signed, "a refusal", || rejected(&daemon, "certificate-revoked") > 0.0);
    site.pki.revoke(&[], 30);
    read_again(2);
    let before = daemon.count("accepted");
    publish_until(&mut signed, "a message", || daemon.count("accepted") > before);
    site.pki.revoke(&[], -1);
    read_again(3);
    publish_until(&mut signed, "a refusal", || rejected(&daemon, "crl-expired") > 0.0);
    // What cannot be read leaves what was: it does not open the door.
    std::fs::write(site.pki.file("crl.pem"), "no list").unwrap();
    daemon.signal("HUP");
    wait_for("the trouble", || (daemon.get("/readyz").1.contains("signers: ")).then_some(()));
    let before = rejected(&daemon, "crl-expired");
    publish_until(&mut signed, "a refusal", || rejected(&daemon, "crl-expired") > before);
    daemon.stop();
}

#[test]
fn the_files_are_read_again_by_themselves() {
    let site = Site::new();
    let mut signed = site.publisher();
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], "refresh = '1s'");
    publish_until(&mut signed, "a message", || daemon.count("accepted") > 0);
    site.pki.revoke(&[5], 30);
    publish_until(&mut signed, "a refusal", || rejected(&daemon, "certificate-revoked") > 0.0);
    daemon.stop();
}

#[test]
fn a_policy_says_who_may_publish_what() {
    let site = Site::new();
    let mut signed = site.publisher();
    let policy = format!("[fedmsg.policy]\n'{TOPIC}' = ['somebody.else']");
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], &policy);
    publish_until(&mut signed, "a refusal", || rejected(&daemon, "signer-not-allowed") > 0.0);
    wait_for("another topic", || {
        signed.publish("demo", "other", "{}", 1);
        (daemon.count("runs") > 0).then_some(())
    });
    daemon.stop();
    assert_eq!(site.bed.tally().keys().collect::<Vec<_>>(), ["other success"]);
}

#[test]
fn a_source_without_trust_does_not_start() {
    let bed = Bed::new();
    let output = bed.run(&["--fedmsg", "tcp://127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("no CA is configured") && said.contains("--unsigned"), "{said}");
    let output = bed.run(&["--fedmsg", "tcp://127.0.0.1:1", "--ca", "nowhere.crt"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot read `nowhere.crt`"), "{said}");
}

/// Signs a body with the original's own function.
fn sign(pki: &Pki, body: &str) -> String {
    let script = "import json, sys, fedmsg.crypto as c; body = json.load(sys.stdin)
print(json.dumps(c.sign(body, ssldir=sys.argv[1], certname='signer.example.org', crypto_backend='x509')))";
    let mut child = std::process::Command::new(python())
        .args(["-c", script])
        .arg(pki.folder())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    text(&output.stdout)
}

#[test]
fn verify_says_of_each_message_whether_it_comes_in() {
    let site = Site::new();
    let body = format!(
        r#"{{"topic":"{TOPIC}","msg_id":"2026-1","timestamp":1,"i":1,"msg":{{"n":1.50}}}}"#
    );
    let good = sign(&site.pki, &body);
    let bad = good.replace("1.5", "2.5");
    site.bed.write("good.json", &good).write("both.json", format!("{good}\n{bad}\n{body}\n"));
    let ca = site.pki.file("ca.crt").display().to_string();
    let crl = site.pki.file("crl.pem").display().to_string();
    let verify = |more: &[&str]| {
        let output = site.bed.run(&[&["verify", "--ca", &ca, "--crl", &crl], more].concat());
        (output.status.code(), text(&output.stdout))
    };
    let accepted = format!("good.json:1: accepted: signed by signer.example.org for {TOPIC}\n");
    assert_eq!(verify(&["good.json"]), (Some(0), accepted));
    let (code, said) = verify(&["both.json"]);
    assert_eq!(code, Some(1), "{said}");
    let verdicts: Vec<_> = said.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(verdicts, ["accepted:", "rejected", "rejected"], "{said}");
    assert!(said.contains("(signature-wrong)") && said.contains("(unsigned)"), "{said}");
    // One that has no message is not accepted, nor one that is not there, and the others are judged.
    site.bed.write("empty.json", "");
    let (code, said) = verify(&["empty.json", "nowhere.json", "good.json"]);
    assert_eq!((code, said.lines().count()), (Some(1), 3), "{said}");
    assert!(said.contains("(no-message)") && said.contains("(file-unreadable)"), "{said}");
    assert!(said.contains("good.json:1: accepted"), "{said}");
    // Its certificate is of the last year and good for another.
    let (code, said) = verify(&["--at", "2020-01-01", "--json", "good.json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, verdict["accepted"].as_bool()), (Some(1), Some(false)), "{said}");
    let output = site.bed.run(&["verify", "good.json"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
}
