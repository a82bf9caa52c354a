//! Signatures: the daemon accepts only messages that a trusted publisher signed for their topic.

use loopabull_testbed::{FedmsgPublisher, Pki, python};
use serde_json::Value;

use crate::test_host::{Daemon, Publisher, TestHost, text, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// A test host with two tasks, and a CA with the certificate of one publisher.
struct Site {
    host: TestHost,
    pki: Pki,
}

impl Site {
    fn new() -> Self {
        let host = TestHost::new();
        host.add_guest("hello", TOPIC, "", "i32.const 0");
        host.add_guest("other", "org.example.prod.demo.other", "", "i32.const 0");
        let pki = Pki::new();
        pki.leaf("signer.example.org", 5);
        pki.revoke(&[], 30);
        Self { host, pki }
    }

    fn start(&self, arguments: &[&str], settings: &str) -> Daemon {
        let file = |name: &str| self.pki.file(name).display().to_string();
        let files = format!("ca = '{}'\ncrl = '{}'\n", file("ca.crt"), file("crl.pem"));
        self.host.write("loopabull.toml", format!("[fedmsg]\n{files}{settings}\n"));
        self.host.start(&[&["--config", "loopabull.toml"], arguments].concat())
    }

    fn publisher(&self) -> FedmsgPublisher {
        FedmsgPublisher::start_signed(&self.pki, "signer.example.org")
    }
}

fn rejected(daemon: &Daemon, reason: &str) -> f64 {
    let name = format!("loopabull_envelopes_rejected_total{{reason=\"{reason}\"}}");
    daemon.metric(&name).unwrap_or_else(|| panic!("no metric has the reason {reason}"))
}

/// Publishes messages until `is_so` returns true. One message is not enough, because a publisher drops all
/// messages before it has received the subscription.
fn publish_until(publisher: &mut FedmsgPublisher, what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || {
        publisher.publish("demo", "hello", "{}", 1);
        is_so().then_some(())
    });
}

#[test]
fn signed_messages_are_accepted_and_unsigned_ones_are_rejected() {
    let site = Site::new();
    site.host.add_playbook(
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
    let runs = site.host.runs();
    let said: Vec<_> = runs.iter().filter(|run| run.task.as_str() == TOPIC).collect();
    assert!(!said.is_empty());
    assert!(said.iter().all(|run| run.output.text.contains("signed by signer.example.org")));
}

/// The old loopabull chose the playbook by the topic of the envelope, which is not signed. So anybody could
/// start a different playbook by sending a signed message again under a different topic.
#[test]
fn a_signed_message_under_another_topic_is_rejected() {
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
    wait_for("the run of the unchanged message", || (daemon.count("runs") > 0).then_some(()));
    assert_eq!(rejected(&daemon, "topic-mismatch"), 1.0);
    assert_eq!(rejected(&daemon, "signature-wrong"), 1.0);
    daemon.stop();
    assert_eq!(site.host.tally(), [("hello success".to_owned(), 1)].into());
}

#[test]
fn a_revoked_certificate_is_rejected_and_an_expired_crl_rejects_all_messages() {
    let site = Site::new();
    let mut signed = site.publisher();
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], "");
    let read_again = |times: usize| {
        daemon.signal("HUP");
        wait_for("the files to be read again", || {
            let count = site.host.log().matches("reread the CA and its CRL").count();
            (count >= times).then_some(())
        });
    };
    publish_until(&mut signed, "a message", || daemon.count("accepted") > 0);
    site.pki.revoke(&[5], 30);
    read_again(1);
    publish_until(&mut signed, "a rejection", || rejected(&daemon, "certificate-revoked") > 0.0);
    site.pki.revoke(&[], 30);
    read_again(2);
    let before = daemon.count("accepted");
    publish_until(&mut signed, "a message", || daemon.count("accepted") > before);
    site.pki.revoke(&[], -1);
    read_again(3);
    publish_until(&mut signed, "a rejection", || rejected(&daemon, "crl-expired") > 0.0);
    // If the CRL cannot be read, the daemon continues to use the previous CRL.
    std::fs::write(site.pki.file("crl.pem"), "no list").unwrap();
    daemon.signal("HUP");
    wait_for("the problem to be reported", || {
        (daemon.get("/readyz").1.contains("signers: ")).then_some(())
    });
    let before = rejected(&daemon, "crl-expired");
    publish_until(&mut signed, "a rejection", || rejected(&daemon, "crl-expired") > before);
    daemon.stop();
}

#[test]
fn the_crl_is_read_again_at_the_refresh_interval() {
    let site = Site::new();
    let mut signed = site.publisher();
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], "refresh = '1s'");
    publish_until(&mut signed, "a message", || daemon.count("accepted") > 0);
    site.pki.revoke(&[5], 30);
    publish_until(&mut signed, "a rejection", || rejected(&daemon, "certificate-revoked") > 0.0);
    daemon.stop();
}

#[test]
fn the_policy_decides_which_signer_may_publish_to_a_topic() {
    let site = Site::new();
    let mut signed = site.publisher();
    let policy = format!("[fedmsg.policy]\n'{TOPIC}' = ['somebody.else']");
    let daemon = site.start(&["--fedmsg", &signed.endpoint()], &policy);
    publish_until(&mut signed, "a rejection", || rejected(&daemon, "signer-not-allowed") > 0.0);
    wait_for("a run for the other topic", || {
        signed.publish("demo", "other", "{}", 1);
        (daemon.count("runs") > 0).then_some(())
    });
    daemon.stop();
    assert_eq!(site.host.tally().keys().collect::<Vec<_>>(), ["other success"]);
}

#[test]
fn a_source_without_a_ca_does_not_start() {
    let host = TestHost::new();
    let output = host.run(&["--fedmsg", "tcp://127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("no CA is configured") && said.contains("--unsigned"), "{said}");
    let output = host.run(&["--fedmsg", "tcp://127.0.0.1:1", "--ca", "nowhere.crt"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot read `nowhere.crt`"), "{said}");
}

/// Signs a body with the function of the original fedmsg.
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
fn verify_reports_for_each_message_whether_it_would_be_accepted() {
    let site = Site::new();
    let body = format!(
        r#"{{"topic":"{TOPIC}","msg_id":"2026-1","timestamp":1,"i":1,"msg":{{"n":1.50}}}}"#
    );
    let good = sign(&site.pki, &body);
    let bad = good.replace("1.5", "2.5");
    site.host.write("good.json", &good).write("both.json", format!("{good}\n{bad}\n{body}\n"));
    let ca = site.pki.file("ca.crt").display().to_string();
    let crl = site.pki.file("crl.pem").display().to_string();
    let verify = |more: &[&str]| {
        let output = site.host.run(&[&["verify", "--ca", &ca, "--crl", &crl], more].concat());
        (output.status.code(), text(&output.stdout))
    };
    let accepted = format!("good.json:1: accepted: signed by signer.example.org for {TOPIC}\n");
    assert_eq!(verify(&["good.json"]), (Some(0), accepted));
    let (code, said) = verify(&["both.json"]);
    assert_eq!(code, Some(1), "{said}");
    let verdicts: Vec<_> = said.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(verdicts, ["accepted:", "rejected", "rejected"], "{said}");
    assert!(said.contains("(signature-wrong)") && said.contains("(unsigned)"), "{said}");
    // An empty or missing file makes the command fail. The other files are still checked.
    site.host.write("empty.json", "");
    let (code, said) = verify(&["empty.json", "nowhere.json", "good.json"]);
    assert_eq!((code, said.lines().count()), (Some(1), 3), "{said}");
    assert!(said.contains("(no-message)") && said.contains("(file-unreadable)"), "{said}");
    assert!(said.contains("good.json:1: accepted"), "{said}");
    // The certificate was not yet valid in 2020.
    let (code, said) = verify(&["--at", "2020-01-01", "--json", "good.json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, verdict["accepted"].as_bool()), (Some(1), Some(false)), "{said}");
    let output = site.host.run(&["verify", "good.json"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
}
