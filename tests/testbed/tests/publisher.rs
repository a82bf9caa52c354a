//! Tests of the fedmsg publisher with a plain ZeroMQ subscriber.

use std::time::{Duration, Instant};

use loopabull_testbed::FedmsgPublisher;
use zmq::{Context, Socket, SocketType};

const PING: &str = "org.example.prod.ping.again";

/// Subscribes to all topics, and returns once messages arrive.
fn subscribe(publisher: &mut FedmsgPublisher) -> zmq::Result<Socket> {
    let socket = Context::new().socket(SocketType::SUB)?;
    socket.set_rcvtimeo(100)?;
    socket.set_subscribe(FedmsgPublisher::TOPIC_PREFIX.as_bytes())?;
    socket.connect(&publisher.endpoint())?;
    let start = Instant::now();
    loop {
        publisher.publish("ping", "again", "{}", 1);
        match socket.recv_multipart(0) {
            Ok(_) => break,
            Err(zmq::Error::EAGAIN) => assert!(start.elapsed() < Duration::from_secs(60)),
            Err(error) => return Err(error),
        }
    }
    socket.set_rcvtimeo(30_000)?;
    Ok(socket)
}

/// Receives the next message that is not one of the pings of [`subscribe`].
fn receive(socket: &Socket) -> zmq::Result<Vec<Vec<u8>>> {
    loop {
        let frames = socket.recv_multipart(0)?;
        if frames[0] != PING.as_bytes() {
            return Ok(frames);
        }
    }
}

#[test]
fn a_message_has_two_frames_and_the_full_topic() {
    let mut publisher = FedmsgPublisher::start();
    let socket = subscribe(&mut publisher).unwrap();

    let ids = publisher.publish("bench", "thing.change", r#"{"n": 1}"#, 3);
    assert_eq!(ids.len(), 3);
    for id in ids {
        let frames = receive(&socket).unwrap();
        let [topic, body] = &frames[..] else { panic!("{} frames", frames.len()) };
        assert_eq!(String::from_utf8_lossy(topic), "org.example.prod.bench.thing.change");
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["topic"], "org.example.prod.bench.thing.change");
        assert_eq!(body["msg"], serde_json::json!({"n": 1}));
        assert_eq!(body["msg_id"], id.as_str());
        assert!(body.get("signature").is_none());
    }
}
