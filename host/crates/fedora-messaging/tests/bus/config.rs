//! Configuration files, read by us and by the original Python package.

use std::path::Path;

use loopabull_fedora_messaging::{Argument, Bus, BusConfig};
use serde_json::{Value, json};

use crate::fixture::Python;

/// Whether we and the original package accept a file.
enum Both {
    Accept,
    Refuse,
    /// The original package accepts the file, but then loses messages or has no limit.
    OnlyWeRefuse,
    /// The original package fails with this file after it has connected.
    OnlyWeAccept,
}

const FILES: &[(Both, &str)] = &[
    (Both::Accept, ""),
    (Both::Accept, "amqp_url = 'amqp://'"),
    (Both::Accept, "AMQP_URL = 'amqp://u:p@host:77/v%2Fw?heartbeat=9&retry_delay=5'"),
    (Both::Accept, "amqp_url = 'amqp://[2001:db8::1]/v'"),
    (
        Both::Accept,
        "amqp_url = 'amqps://host/'\n[tls]\nca_cert = '/a'\nkeyfile = '/k'\ncertfile = '/c'",
    ),
    // The sample file of the original package.
    (
        Both::Accept,
        r##"
amqp_url = "amqp://"
passive_declares = false
publish_exchange = "amq.topic"
topic_prefix = ""
callback = "fedora_messaging.example:printer"
[tls]
ca_cert = "/etc/pki/tls/certs/ca-bundle.crt"
keyfile = "/my/client/key.pem"
certfile = "/my/client/cert.pem"
[client_properties]
app = "Example Application"
# Some suggested extra fields:
app_url = "https://github.com/fedora-infra/fedora-messaging"
app_contacts_email = "jcline@fedoraproject.org"
[exchanges."amq.topic"]
type = "topic"
durable = true
auto_delete = false
arguments = {}
[queues.my_queue]
durable = true
auto_delete = false
exclusive = false
arguments = {}
[[bindings]]
queue = "my_queue"
exchange = "amq.topic"
routing_keys = ["#"]
[consumer_config]
example_key = "for my consumer"
[qos]
prefetch_size = 0
prefetch_count = 25
[log_config]
version = 1
disable_existing_loggers = true
[log_config.root]
level = "ERROR"
handlers = ["console"]
"##,
    ),
    // The file for Fedora's public broker.
    (
        Both::Accept,
        r#"
amqp_url = "amqps://fedora:@rabbitmq.fedoraproject.org/%2Fpublic_pubsub"
[tls]
ca_cert = "/etc/fedora-messaging/cacert.pem"
keyfile = "/etc/fedora-messaging/fedora-key.pem"
certfile = "/etc/fedora-messaging/fedora-cert.pem"
[client_properties]
app = "Example Application"
[exchanges."amq.topic"]
type = "topic"
durable = true
auto_delete = false
arguments = {}
[queues.00000000-0000-0000-0000-000000000000]
durable = false
auto_delete = true
exclusive = true
arguments = {}
[[bindings]]
queue = "00000000-0000-0000-0000-000000000000"
exchange = "amq.topic"
routing_keys = ["org.fedoraproject.*.a.#", "b"]
"#,
    ),
    // A file with two queues, one of them passive, and with several bindings of one queue.
    (
        Both::Accept,
        r#"
passive_declares = true
[queues.a]
durable = true
auto_delete = false
exclusive = false
arguments = { x-max-length = 5, x-expires = 99999999999, deep = { list = [1, "b", true] } }
[queues.b]
durable = true
auto_delete = false
exclusive = false
passive = false
arguments = {}
[[bindings]]
queue = "a"
exchange = "e"
routing_keys = ["x"]
[[bindings]]
queue = "a"
exchange = "amq.topic"
routing_keys = ["y", "z"]
"#,
    ),
    (
        Both::Accept,
        "[queues.'']\ndurable = false\nauto_delete = true\nexclusive = true\narguments = {}",
    ),
    (Both::Accept, "[[bindings]]\nexchange = 'e'\nrouting_keys = ['a.*', 'b.#']"),
    (Both::Accept, "[monitoring]\nport = 8000"),
    (Both::Accept, "[client_properties]\napp_contacts_email = ['a@b', 'c@d']"),
    (Both::Accept, "[client_properties]\nproduct = 'Fedora Messaging with Pika'\nx = 'y'"),
    (Both::Accept, "bindings = []"),
    (Both::Refuse, "a ="),
    (Both::Refuse, "amqp_uri = 'amqp://'"),
    (Both::Refuse, "amqp_url = 'http2://host'"),
    (Both::Refuse, "amqp_url = 'amqp://host?heartbeats=9'"),
    (Both::Refuse, "amqp_url = 5"),
    (Both::Refuse, "queues = []"),
    (Both::Refuse, "queues = { q = 5 }"),
    (Both::Refuse, "[queues.q]\ndurable = true\nauto_delete = true\nexclusive = true"),
    (
        Both::Refuse,
        "[queues.q]\ndurable=true\nauto_delete=true\nexclusive=true\narguments={}\nttl=1",
    ),
    (Both::Refuse, "bindings = { exchange = 'e', routing_keys = [] }"),
    (Both::Refuse, "[[bindings]]\nexchange = 'e'"),
    (Both::Refuse, "[[bindings]]\nrouting_keys = ['a']"),
    (Both::Refuse, "[[bindings]]\nexchange = 'e'\nrouting_keys = 'a'"),
    (Both::Refuse, "[[bindings]]\nexchange = 'e'\nrouting_keys = ['a']\nkey = 'b'"),
    (Both::Refuse, "[client_properties]\nproduct = 'ours'"),
    (Both::Refuse, "[client_properties]\nversion = '1'"),
    (Both::Refuse, "[monitoring]\naddress = '::'"),
    (Both::Refuse, "[queues.q]\ndurable=true\nauto_delete=true\nexclusive=true\narguments={a=1.5}"),
    (Both::Refuse, "qos = 5"),
    (Both::OnlyWeRefuse, "[queues]"),
    (Both::OnlyWeRefuse, "[qos]\nprefetch_size = 0\nprefetch_count = 0"),
    (Both::OnlyWeRefuse, "[[bindings]]\nqueue = 'no'\nexchange = 'e'\nrouting_keys = []"),
    (Both::OnlyWeRefuse, "passive_declares = 'no'"),
    (Both::OnlyWeAccept, "[qos]\nprefetch_size = 0"),
    (Both::OnlyWeAccept, "[tls]\nca_cert = '/a'"),
];

#[tokio::test]
async fn a_configuration_file_has_the_same_meaning_as_in_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let mut python = Python::start(include_str!("fedora_config.py"), folder.path());
    for (number, (both, text)) in FILES.iter().enumerate() {
        let file = folder.path().join(format!("{number}.toml"));
        std::fs::write(&file, text).unwrap();
        let theirs: Value = serde_json::from_str(&python.ask(file.to_str().unwrap())).unwrap();
        let ours = ours(text, &file);
        let refused = |value: &Value| value.get("error").is_some();
        let outcome = (refused(&ours), refused(&theirs));
        let details = format!("{text}\nours: {ours:#}\ntheirs: {theirs:#}");
        match both {
            Both::Accept => assert_eq!(ours, theirs, "{details}"),
            Both::Refuse => assert_eq!(outcome, (true, true), "{details}"),
            Both::OnlyWeRefuse => assert_eq!(outcome, (true, false), "{details}"),
            Both::OnlyWeAccept => assert_eq!(outcome, (false, true), "{details}"),
        }
    }
}

/// Reads a file with our code. Returns the settings in the format of the Python program's answer.
fn ours(text: &str, file: &Path) -> Value {
    let buses = match BusConfig::from_python_config(text, file) {
        Ok(buses) => buses,
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(file.to_str().unwrap()), "{error}");
            return json!({ "error": error });
        }
    };
    let mut broker = String::new();
    let mut queues = Vec::new();
    for config in &buses {
        match Bus::start(config) {
            Ok(bus) => broker = bus.name().to_owned(),
            Err(error) => return json!({ "error": error.to_string() }),
        }
        let queue = &config.queue;
        let bindings = config.bindings.iter();
        let bindings: Vec<_> = bindings
            .flat_map(|binding| {
                binding.routing_keys.iter().map(|key| json!([binding.exchange, key]))
            })
            .collect();
        queues.push(json!({
            "queue": {
                "queue": queue.name,
                "passive": config.passive_declares,
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "exclusive": queue.exclusive,
                "arguments": table(&queue.arguments),
            },
            "bindings": bindings,
            "prefetch": config.prefetch,
        }));
    }
    let tls = &buses[0].tls;
    json!({
        "broker": broker,
        "tls": [tls.ca_cert, tls.keyfile, tls.certfile],
        "client_properties": buses[0].client_properties,
        "queues": queues,
    })
}

fn table(arguments: &std::collections::BTreeMap<String, Argument>) -> Value {
    let pairs = arguments.iter().map(|(name, argument)| (name.clone(), value(argument)));
    Value::Object(pairs.collect())
}

fn value(argument: &Argument) -> Value {
    match argument {
        Argument::Boolean(value) => json!(value),
        Argument::Integer(value) => json!(value),
        Argument::Text(value) => json!(value),
        Argument::List(list) => list.iter().map(value).collect(),
        Argument::Table(inner) => table(inner),
    }
}
