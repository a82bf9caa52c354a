//! Tests of the watch: the report of denied ports and of used files.

use std::net::{TcpListener, UdpSocket};

use loopabull_launcher::{FileAccess, Layer, Report, Watch};

use crate::fixture::{Fixture, VARIANTS};

/// A program that connects to the TCP ports of its first argument, and by UDP to that of its second.
const PROGRAM: &str = "
import contextlib, socket, sys
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    for port in sys.argv[1].split(','):
        try:
            socket.create_connection((address, int(port)), timeout=5) if family == socket.AF_INET else \\
                socket.socket(family).connect((address, int(port)))
            print(address, port, 'connected')
        except OSError as error:
            print(address, port, error.strerror)
import threading
def try_other():
    with contextlib.suppress(OSError):
        socket.create_connection(('127.0.0.1', 9), timeout=5)
thread = threading.Thread(target=try_other)
thread.start()
thread.join()
socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', int(sys.argv[2])))
";

fn denied(reports: &[Report]) -> Vec<u16> {
    let port = |report: &Report| match report {
        Report::Denied { port } => Some(*port),
        _ => None,
    };
    reports.iter().filter_map(port).collect()
}

#[test]
fn each_denied_tcp_port_is_named_once() {
    let [granted, other] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let [granted, other] = [granted, other].map(|listener| {
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    });
    for without in VARIANTS {
        let mut fixture = Fixture::new("", without);
        fixture.confinement.program = "/usr/bin/python3".into();
        let ports = format!("{},{},{}", granted.1, other.1, other.1);
        let udp = udp.local_addr().unwrap().port().to_string();
        fixture.confinement.arguments =
            ["-c", PROGRAM, &ports, &udp].map(std::ffi::OsString::from).to_vec();
        fixture.confinement.tcp = vec![granted.1];
        fixture.confinement.watch = Watch::DeniedPorts;
        let (reports, printed) = fixture.run(&[]);
        assert!(reports.contains(&Report::Exited { status: 0 }), "{reports:?}\n{printed}");
        assert!(printed.contains(&format!("127.0.0.1 {} connected", granted.1)), "{printed}");
        // Port 9 was tried by another thread than the first.
        assert_eq!(denied(&reports), [other.1, 9], "{printed}");
        assert_eq!(printed.matches("Permission denied").count(), 4, "{printed}");
        fixture.confinement.watch = Watch::Nothing;
        assert!(denied(&fixture.run(&[]).0).is_empty());
        // Without the layer, nothing is denied.
        fixture.confinement.watch = Watch::DeniedPorts;
        fixture.confinement.without.insert(Layer::Tcp);
        let (reports, printed) = fixture.run(&[]);
        assert!(denied(&reports).is_empty() && !printed.contains("Permission denied"), "{printed}");
    }
}

/// The kernel asks the launcher for each connection, so it must answer also while signals arrive.
#[test]
fn many_connections_are_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = "
import socket, subprocess, sys
for count in range(300):
    socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=20).close()
    if count % 10 == 0:
        subprocess.run(['true'])
print('all')
";
    std::thread::scope(|scope| {
        scope.spawn(|| (0..300).for_each(|_| drop(listener.accept().unwrap())));
        let mut fixture = Fixture::new("", &[]);
        fixture.confinement.program = "/usr/bin/python3".into();
        fixture.confinement.arguments =
            ["-c", program, &port.to_string()].map(std::ffi::OsString::from).to_vec();
        fixture.confinement.tcp = vec![port];
        fixture.confinement.watch = Watch::DeniedPorts;
        assert_eq!(fixture.run(&[]).1, "all\n");
    });
}

#[test]
fn files_are_named_with_the_access() {
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| outside.path().canonicalize().unwrap().join(name);
    std::fs::create_dir(at("dir")).unwrap();
    std::fs::write(at("dir/read"), "x").unwrap();
    std::fs::write(at("dir/changed"), "x").unwrap();
    std::os::unix::fs::symlink("dir", at("link")).unwrap();
    let script = "cat link/read /nonexistent/file; cd dir; echo > new; echo >> changed; \
                  mkdir made; rmdir made; rm -f absent; cat < read";
    let mut fixture = Fixture::new(script, &[]);
    fixture.confinement.directory = at("");
    fixture.confinement.files.write = vec!["/".into()];
    fixture.confinement.watch = Watch::Everything;
    let (reports, printed) = fixture.run(&[]);
    assert_eq!(printed, "xx", "{reports:?}");
    let used: Vec<_> = reports
        .into_iter()
        .filter_map(|report| match report {
            Report::Used { access, path } if path.starts_with(at("")) => Some((access, path)),
            _ => None,
        })
        .collect();
    let expected = [
        (FileAccess::Write, at("dir/changed")),
        (FileAccess::Create, at("dir/made")),
        (FileAccess::Create, at("dir/new")),
        (FileAccess::Read, at("dir/read")),
    ];
    assert_eq!(used, expected);
}
