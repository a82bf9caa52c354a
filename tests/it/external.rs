//! External messages, which other programs publish into the queue `workers`. If the host knows the format of
//! a message and a task wants its topic, the message is routed to the task. All other messages are
//! dead-lettered.

use loopabull_testbed::{Rabbit, python};

use crate::test_host::{TestHost, text, wait_for};

/// Publishes with pika, the AMQP client of fedora-messaging. The input is a list of `[exchange, key, body]`.
const PUBLISH: &str = r##"
import sys, json, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
channel.confirm_delivery()
channel.queue_bind("workers", "amq.topic", "#")
for exchange, key, body in json.loads(sys.stdin.read()):
    properties = pika.BasicProperties(
        delivery_mode=2, message_id="id-of-" + key, headers={"fedora_messaging_severity": 20}
    )
    channel.basic_publish(exchange, key, body.encode("utf-8", "surrogateescape"), properties)
connection.close()
"##;

#[test]
fn external_messages_are_routed_or_dead_lettered() {
    let vhost = Rabbit::shared().vhost();
    let (url, host) = (vhost.url(), TestHost::new());
    let topic = "org.fedoraproject.prod.thing.new";
    host.add_guest("good", topic, "", "i32.const 0");
    host.add_guest("also", "org.fedoraproject.#", "queue = 'slow'", "i32.const 0");
    // The queue exists and contains a message before the daemon starts for the first time.
    let old = "import sys, pika\n\
        channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()\n\
        channel.queue_declare('workers', durable=True)\n\
        channel.basic_publish('', 'workers', sys.argv[2])";
    let first = format!(
        r#"{{"topic":"{topic}","body":{{"topic":"{topic}","msg_id":"2026-old","i":1,"msg":{{}}}}}}"#
    );
    let filled =
        std::process::Command::new(python()).args(["-c", old, &url, &first]).status().unwrap();
    assert!(filled.success());
    let daemon = host.start(&["--amqp-url", &url]);
    let whole = format!(
        r#"{{"topic":"{topic}","msg_id":"2026-whole","i":1,"timestamp":7,"username":"x","msg":{{"n":1}}}}"#
    );
    let wrapped =
        format!(r#"{{"topic":"{topic}","body":{}}}"#, whole.replace("2026-whole", "2026-wrapped"));
    let bodies = [
        ("", "workers", wrapped.as_str()),
        ("", "workers", whole.as_str()),
        ("amq.topic", topic, r#"{"n":1}"#),
        ("amq.topic", "nobody.wants.this", r#"{"n":1}"#),
        ("", "workers", r#"{"n":1}"#),
        ("", "workers", "no JSON"),
        ("amq.topic", topic, "[1]"),
    ];
    let mut publish = std::process::Command::new(python())
        .args(["-c", PUBLISH, &url])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(&bodies).unwrap();
    std::io::Write::write_all(&mut publish.stdin.take().unwrap(), &input).unwrap();
    assert!(publish.wait().unwrap().success());
    wait_for("all messages to be run or dead-lettered", || {
        (daemon.count("runs") == 8 && daemon.depth("dead") == Some(4)).then_some(())
    });
    daemon.wait_until_idle();
    assert_eq!(daemon.count("unrouted"), 1);
    assert_eq!(daemon.count("rejected"), 3);
    assert_eq!(
        host.tally(),
        [("also success".to_owned(), 4), ("good success".to_owned(), 4)].into()
    );
    let mut ids: Vec<_> = host.runs().iter().map(|run| run.message_id.to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids, ["2026-old", "2026-whole", "2026-wrapped", &format!("id-of-{topic}")]);
    let letters = host.run(&["dead-letters", "--amqp-url", &url]);
    let letters = text(&letters.stdout);
    assert_eq!(letters.matches("undecodable: ").count(), 3, "{letters}");
    assert!(letters.contains("no task subscribes to topic `nobody.wants.this`"), "{letters}");
    daemon.stop();
}

#[test]
fn headers_of_every_type_reach_a_task() {
    let vhost = Rabbit::shared().vhost();
    let (url, host) = (vhost.url(), TestHost::new());
    let got = host.shared("got");
    let tasks = format!(
        "    - copy: {{ content: '{{{{ loopabull.headers | to_json }}}}', dest: '{}' }}\n",
        got.display()
    );
    host.add_playbook("a.b", "", &tasks);
    let daemon = host.start(&["--amqp-url", &url]);
    let publish = r##"
import sys, pika, datetime
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
channel.queue_bind("workers", "amq.topic", "#")
time = datetime.datetime.fromtimestamp(1700000000, datetime.timezone.utc)
headers = {"number": 20, "list": [1, "a", {"k": time}], "time": time, "bytes": b"\xff\xfe"}
headers |= {"text": b"ab", "nothing": None, "x-broker": [1]}
channel.basic_publish("amq.topic", "a.b", b"{}", pika.BasicProperties(headers=headers))
"##;
    let done = std::process::Command::new(python()).args(["-c", publish, &url]).status().unwrap();
    assert!(done.success());
    wait_for("the message to run", || (daemon.count("runs") == 1).then_some(()));
    daemon.stop();
    let got: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(got).unwrap()).unwrap();
    let expected = serde_json::json!([
        ["bytes", "fffe"],
        ["list", r#"[1,"a",{"k":1700000000}]"#],
        ["nothing", "null"],
        ["number", "20"],
        ["text", "ab"],
        ["time", "1700000000"],
    ]);
    assert_eq!(got, expected);
}
