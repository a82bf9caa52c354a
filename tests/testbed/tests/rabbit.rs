//! Tests of a RabbitMQ node during and after its faults.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use loopabull_testbed::Rabbit;

/// Connects and sends the protocol header of AMQP. Returns whether the node answers in time.
fn greets(rabbit: &Rabbit) -> bool {
    let greet = || {
        let mut stream = TcpStream::connect(rabbit.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        stream.read(&mut [0; 8])
    };
    greet().is_ok_and(|length| length > 0)
}

#[test]
fn a_node_can_be_frozen_blocked_stopped_and_killed() {
    let rabbit = Rabbit::start_with(&["{consumer_timeout, 61000}"]);
    let timeout = "application:get_env(rabbit, consumer_timeout)";
    assert_eq!(rabbit.eval(timeout), "{ok,61000}");
    let vhost = rabbit.vhost();
    assert!(greets(&rabbit) && rabbit.is_running());
    let alarms = || rabbit.eval("rabbit_alarm:get_alarms()");
    rabbit.set_memory_alarm(true);
    rabbit.set_disk_alarm(true);
    assert!(alarms().contains("memory") && alarms().contains("disk"));
    rabbit.set_memory_alarm(false);
    rabbit.set_disk_alarm(false);
    assert_eq!(alarms(), "[]");
    rabbit.close_all_connections("a test");
    rabbit.stop_app();
    assert!(!greets(&rabbit));
    rabbit.start_app();
    assert!(greets(&rabbit));
    rabbit.freeze();
    assert!(!rabbit.is_running() && !greets(&rabbit));
    rabbit.thaw();
    assert!(greets(&rabbit));
    rabbit.freeze();
    rabbit.kill();
    assert!(!greets(&rabbit) && !rabbit.is_running());
    rabbit.restart();
    assert!(greets(&rabbit));
    assert!(rabbit.ctl(&["list_vhosts"]).contains(&vhost.name));
}
