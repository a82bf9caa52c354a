//! Names with addresses that the grant does not cover.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use loopabull_egress::{Denied, Egress, EgressLimits, SendError};

use crate::test_server::{Server, answers, get, grants, tls_roots};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

async fn check_denied(address: &str) {
    let (names, _) = answers(&[&[address]]);
    let granted = grants("'http://name.example'");
    let run = Egress::with_names(granted, EgressLimits::default(), tls_roots(), names).begin_run();
    let error = get(&run, "http://name.example/").await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::Address { .. })), "{address}: {error:?}");
}

#[tokio::test]
async fn a_name_with_a_private_address_is_denied() {
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
        "fd00::1",
        "fe80::1",
    ] {
        check_denied(address).await;
    }
}

#[tokio::test]
async fn the_denial_names_the_address_and_the_grant_to_add() {
    let (names, _) = answers(&[&["10.1.2.3"]]);
    let granted = grants("'http://pagure.internal:8080'");
    let run = Egress::with_names(granted, EgressLimits::default(), tls_roots(), names).begin_run();
    let error = get(&run, "http://pagure.internal:8080/").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`http://pagure.internal:8080` resolves to `10.1.2.3`, which is not public: \
         add { url = \"http://pagure.internal:8080\", addresses = [\"10.1.2.3\"] } \
         to http under [grants]"
    );
}

#[tokio::test]
async fn the_connection_uses_the_checked_address_of_a_name_that_changes() {
    // Two servers use the same port on two addresses. The first look-up returns the address of one server,
    // and later look-ups return the address of the other.
    let checked = Server::start_at("127.0.0.2:0".parse().unwrap(), None, |wire| {
        wire.write_all(OK.as_bytes()).unwrap();
    });
    let port = checked.address.port();
    let other =
        Server::start_at(SocketAddr::new("127.0.0.1".parse().unwrap(), port), None, |wire| {
            wire.write_all(OK.as_bytes()).unwrap();
        });
    let (names, look_ups) = answers(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let url = format!("http://name.example:{port}");
    let granted = grants(&format!("{{ url = '{url}', addresses = ['127.0.0.2'] }}"));
    let run = Egress::with_names(granted, EgressLimits::default(), tls_roots(), names).begin_run();

    assert_eq!(get(&run, &url).await.unwrap().status.as_u16(), 200);
    assert_eq!(look_ups.load(Ordering::SeqCst), 1);
    assert_eq!((checked.connections(), other.connections()), (1, 0));

    let error = get(&run, &url).await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::Address { .. })), "{error:?}");
    assert_eq!(look_ups.load(Ordering::SeqCst), 2);
    assert_eq!((checked.connections(), other.connections()), (1, 0));
}

#[tokio::test]
async fn only_allowed_addresses_of_a_name_are_tried() {
    let checked = Server::start_at("127.0.0.2:0".parse().unwrap(), None, |wire| {
        wire.write_all(OK.as_bytes()).unwrap();
    });
    let port = checked.address.port();
    let other =
        Server::start_at(SocketAddr::new("127.0.0.1".parse().unwrap(), port), None, |wire| {
            wire.write_all(OK.as_bytes()).unwrap();
        });
    // No server listens on 127.0.0.3, so the connection uses the next allowed address.
    let (names, _) = answers(&[&["127.0.0.1", "127.0.0.3", "127.0.0.2"]]);
    let url = format!("http://name.example:{port}");
    let granted = grants(&format!("{{ url = '{url}', addresses = ['127.0.0.2', '127.0.0.3'] }}"));
    let run = Egress::with_names(granted, EgressLimits::default(), tls_roots(), names).begin_run();
    get(&run, &url).await.unwrap();
    assert_eq!((checked.connections(), other.connections()), (1, 0));
}

#[tokio::test]
async fn an_address_is_allowed_only_for_its_own_origin() {
    let (names, _) = answers(&[&["127.0.0.1"]]);
    let granted = grants("{ url = 'http://a', addresses = ['127.0.0.1'] }, 'http://b'");
    let run = Egress::with_names(granted, EgressLimits::default(), tls_roots(), names).begin_run();
    let error = get(&run, "http://b/").await.unwrap_err();
    assert!(matches!(error, SendError::Denied(Denied::Address { .. })), "{error:?}");
}

#[tokio::test]
async fn a_name_without_addresses_is_an_error() {
    let (names, _) = answers(&[&[]]);
    let run = Egress::with_names(grants("'http://a'"), EgressLimits::default(), tls_roots(), names)
        .begin_run();
    let error = get(&run, "http://a/").await.unwrap_err();
    assert_eq!(error.to_string(), "`a` has no address");
}
