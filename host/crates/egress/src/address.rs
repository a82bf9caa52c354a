//! The decision whether an IP address is public.
//!
//! This module contains tables of the address blocks that are not public (IANA's registries of
//! special-purpose addresses, RFC 6890 and its successors). It does not know grants or names: the module
//! `resolver` looks a name up, and checks each of its addresses here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 blocks that are not public. Each item is the first address and the prefix length of a block.
const NOT_PUBLIC_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),          // this network
    ([10, 0, 0, 0], 8),         // private
    ([100, 64, 0, 0], 10),      // carrier-grade NAT
    ([127, 0, 0, 0], 8),        // loopback
    ([168, 63, 129, 16], 32),   // Azure's host services, including metadata
    ([169, 254, 0, 0], 16),     // link-local, including the metadata service of other clouds
    ([172, 16, 0, 0], 12),      // private
    ([192, 0, 0, 0], 24),       // protocol assignments
    ([192, 0, 2, 0], 24),       // documentation
    ([192, 88, 99, 0], 24),     // 6to4 relays
    ([192, 168, 0, 0], 16),     // private
    ([198, 18, 0, 0], 15),      // benchmarks
    ([198, 51, 100, 0], 24),    // documentation
    ([203, 0, 113, 0], 24),     // documentation
    ([224, 0, 0, 0], 4),        // multicast
    ([240, 0, 0, 0], 4),        // reserved
    ([255, 255, 255, 255], 32), // broadcast
];

/// IPv6 blocks inside 2000::/3 that are not public. All addresses outside 2000::/3 are not public either:
/// loopback, IPv4-compatible, unique local, link-local, site-local, multicast.
const NOT_PUBLIC_V6: [([u16; 2], u32); 4] = [
    ([0x2001, 0x0000], 23), // protocol assignments, including Teredo, ORCHID and benchmarks
    ([0x2001, 0x0db8], 32), // documentation
    ([0x2002, 0x0000], 16), // 6to4, which embeds an IPv4 address
    ([0x3fff, 0x0000], 20), // documentation
];

/// Returns whether an address belongs to the public internet.
///
/// An IPv6 address may contain an IPv4 address to which the system or a NAT64 gateway translates the IPv6
/// address (`::ffff:0:0/96`, `64:ff9b::/96`). In this case, the IPv4 address decides.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match nat64_target(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|&(first, prefix)| {
        (address.to_bits() ^ Ipv4Addr::from(first).to_bits()) >> (32 - prefix) == 0
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let high = (address.to_bits() >> 96) as u32;
    let is_unicast = high >> 29 == 0b001;
    is_unicast
        && !NOT_PUBLIC_V6.iter().any(|&([first, second], prefix)| {
            (high ^ (u32::from(first) << 16 | u32::from(second))) >> (32 - prefix) == 0
        })
}

/// Returns the IPv4 address in an IPv6 address with the well-known NAT64 prefix (RFC 6052).
fn nat64_target(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let is_nat64 = address.to_bits() >> 32 == 0x0064_ff9b_0000_0000_0000_0000;
    is_nat64.then(|| Ipv4Addr::from_bits(address.to_bits() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for address in addresses {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn internet_addresses_are_public() {
        check(&["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "223.255.255.255"], true);
        check(&["9.255.255.255", "11.0.0.0", "128.0.0.1", "198.20.0.1"], true);
        check(&["2620:fe::fe", "2a00:1450::1", "2001:4860:4860::8888", "2001:200::1"], true);
        check(&["::ffff:8.8.8.8", "64:ff9b::8.8.8.8"], true);
    }

    #[test]
    fn local_and_private_addresses_are_not_public() {
        check(&["127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "::1", "::"], false);
        check(&["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255"], false);
        check(&["192.168.0.1", "100.64.0.1", "100.127.255.255", "fc00::1", "fdff::1"], false);
    }

    #[test]
    fn cloud_metadata_addresses_are_not_public() {
        check(&["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"], false);
        check(&["168.63.129.16", "fe80::a9fe:a9fe"], false);
    }

    #[test]
    fn unroutable_addresses_are_not_public() {
        check(&["192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.1"], false);
        check(&["224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"], false);
        check(&["192.88.99.1", "ff02::1", "fec0::1", "2001:db8::1", "3fff::1", "100::1"], false);
        check(&["5f00::1", "2001:2::1", "2001:20::1"], false);
    }

    #[test]
    fn embedded_private_addresses_are_not_public() {
        check(&["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"], false);
        check(&["::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1"], false);
        check(&["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8"], false);
        check(&["2002:7f00:1::1", "2002:a00:1::1", "2001:0:7f00:1::1"], false);
    }
}
