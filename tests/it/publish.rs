//! Messages that tasks emit are also published to a bus. The Python library fedora-messaging reads them from
//! the bus, and so checks that their form is valid.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use loopabull_testbed::{Rabbit, python};
use serde_json::{Value, json};

use crate::emit::sender;
use crate::test_host::{TestHost, message};

/// Binds a queue to the exchange, prints `ready`, and prints the first message as fedora-messaging reads it.
const LISTENER: &str = r##"
import json, sys
import pika
from fedora_messaging import message
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, "amq.topic", "#")
print("ready", flush=True)
for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=100):
    got = message.get_message(method.routing_key, properties, body)
    print(json.dumps({
        "topic": got.topic, "id": got.id, "body": got.body, "severity": got.severity,
        "sent_by": got._headers["loopabull-sent-by"],
    }), flush=True)
    break
"##;

#[test]
fn fedora_messaging_can_read_the_messages_that_a_task_publishes() {
    let vhost = Rabbit::shared().vhost();
    let mut listener = Command::new(python())
        .args(["-c", LISTENER, &vhost.url()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");

    let host = TestHost::new();
    host.write("tasks/sends.wasm", sender("b.c", 1, "i32.const 0"));
    host.write("tasks/sends.toml", "topics = ['a']\ngrants.emit = ['b.#']");
    let url = vhost.url();
    let config = format!("[publish]\namqp_url = '{url}'\nexchange = 'amq.topic'\n");
    host.write("loopabull.toml", config);
    let daemon = host.start(&["--config", "loopabull.toml"]);
    host.inject(&[message("m-1", "a", "{}")]);
    let got: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    daemon.wait_until_idle();
    daemon.stop();
    drop(listener.wait());
    let sent = host.runs()[0].emitted[0].id.to_string();
    let expected = json!({
        "topic": "b.c", "id": sent, "body": {"n": 1}, "severity": 20, "sent_by": "sends",
    });
    assert_eq!(got, expected);
}
