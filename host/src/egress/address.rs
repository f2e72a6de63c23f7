//! Which addresses are nobody's to reach from here: everything that is not the public Internet.
//!
//! From IANA's special-purpose registries for IPv4 and IPv6. Of IPv6 only `2000::/3` is public at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::allow::{AllowList, Cidr};

/// What an address is, if it is not public. The narrower range comes first where two hold it.
const V4: &[(&str, u8, &str)] = &[
    ("0.0.0.0", 8, "an unspecified address"),
    ("10.0.0.0", 8, "a private address"),
    ("100.100.100.200", 32, "a cloud's metadata address"),
    ("100.64.0.0", 10, "a carrier's private address"),
    ("127.0.0.0", 8, "a loopback address"),
    ("168.63.129.16", 32, "a cloud's metadata address"),
    ("169.254.0.0", 16, "a link-local address"),
    ("172.16.0.0", 12, "a private address"),
    ("192.0.0.0", 24, "a protocol's address"),
    ("192.0.2.0", 24, "a documentation address"),
    ("192.88.99.0", 24, "a 6to4 relay"),
    ("192.168.0.0", 16, "a private address"),
    ("198.18.0.0", 15, "a benchmark address"),
    ("198.51.100.0", 24, "a documentation address"),
    ("203.0.113.0", 24, "a documentation address"),
    ("224.0.0.0", 4, "a multicast address"),
    ("255.255.255.255", 32, "the broadcast address"),
    ("240.0.0.0", 4, "a reserved address"),
];

const V6: &[(&str, u8, &str)] = &[
    ("::", 128, "an unspecified address"),
    ("::1", 128, "a loopback address"),
    ("::ffff:0:0", 96, "an IPv4 address in another form"),
    ("::", 96, "an IPv4 address in another form"),
    ("64:ff9b::", 96, "a NAT64 address"),
    ("64:ff9b:1::", 48, "a NAT64 address"),
    ("100::", 64, "a discard address"),
    ("2001::", 32, "a Teredo address"),
    ("2001:2::", 48, "a benchmark address"),
    ("2001::", 23, "a protocol's address"),
    ("2001:db8::", 32, "a documentation address"),
    ("2002::", 16, "a 6to4 address"),
    ("3fff::", 20, "a documentation address"),
    ("fc00::", 7, "a private address"),
    ("fe80::", 10, "a link-local address"),
    ("fec0::", 10, "a site-local address"),
    ("ff00::", 8, "a multicast address"),
];

/// The public part of IPv6.
const PUBLIC_V6: (&str, u8) = ("2000::", 3);

/// What keeps `address` from being reached; `None` if nothing does.
pub(super) fn refusal(address: IpAddr, allow: &AllowList) -> Option<&'static str> {
    // The system connects a mapped address over IPv4: it is that one.
    let address = address.to_canonical();
    // Behind a translator the inner address is what is reached, so opening the translator's range
    // opens no more than is open without it.
    if let IpAddr::V6(outer) = address
        && let Some(inner) = embedded(outer)
        && allow.holds(address)
    {
        return refusal(IpAddr::V4(inner), allow);
    }
    if allow.holds(address) {
        return None;
    }
    match address {
        IpAddr::V4(_) => find(V4, address),
        IpAddr::V6(_) => find(V6, address).or_else(|| {
            let is_public = is_in(PUBLIC_V6.0, PUBLIC_V6.1, address);
            (!is_public).then_some("a reserved address")
        }),
    }
}

fn find(ranges: &[(&str, u8, &'static str)], address: IpAddr) -> Option<&'static str> {
    let range = ranges.iter().find(|(first, bits, _)| is_in(first, *bits, address));
    range.map(|(_, _, what)| *what)
}

/// A range that cannot be read holds everything, so that a slip in the tables closes, not opens.
fn is_in(first: &str, bits: u8, address: IpAddr) -> bool {
    first.parse().is_ok_and(|first| Cidr { first, bits }.holds(address))
}

/// The IPv4 address that stands in one of a translator's.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let v4 = |at: usize| {
        let part = octets.get(at..at + 4)?;
        <[u8; 4]>::try_from(part).ok().map(Ipv4Addr::from)
    };
    let outer = IpAddr::V6(address);
    if is_in("64:ff9b::", 96, outer) || is_in("64:ff9b:1::", 48, outer) {
        return v4(12);
    }
    if is_in("2002::", 16, outer) {
        return v4(2);
    }
    // Teredo keeps its client's address with all bits turned.
    is_in("2001::", 32, outer).then(|| v4(12).map(|client| !client)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allow: &str) -> Option<&'static str> {
        refusal(address.parse().unwrap(), &AllowList::parse(allow).unwrap())
    }

    #[test]
    fn every_range_of_the_tables_can_be_read() {
        for (first, bits, what) in V4.iter().chain(V6) {
            let first: IpAddr = first.parse().unwrap();
            assert!(Cidr::new(first, *bits).is_ok(), "{first}/{bits} {what}");
        }
    }

    #[test]
    fn the_first_and_last_address_of_a_range_are_refused_and_no_more() {
        let cases = [
            ("9.255.255.255", None),
            ("10.0.0.0", Some("a private address")),
            ("10.255.255.255", Some("a private address")),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.127.255.255", Some("a carrier's private address")),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.31.255.255", Some("a private address")),
            ("172.32.0.0", None),
            ("198.17.255.255", None),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("168.63.129.16", Some("a cloud's metadata address")),
            ("255.255.255.255", Some("the broadcast address")),
            ("1fff::", Some("a reserved address")),
            ("2001:200::1", None),
            ("2606:4700::1111", None),
            ("2003::1", None),
            ("3fff:fff::1", Some("a documentation address")),
            ("4000::", Some("a reserved address")),
        ];
        for (address, expected) in cases {
            assert_eq!(refused(address, ""), expected, "{address}");
        }
    }

    #[test]
    fn an_open_translator_opens_no_inner_address() {
        let open = "64:ff9b::/96,2002::/16,2001::/32";
        for inside in ["64:ff9b::7f00:1", "2002:a00:1::1", "2001:0:1:2:3:4:80ff:fffe"] {
            assert!(refused(inside, open).is_some(), "{inside}");
        }
        assert_eq!(refused("64:ff9b::808:808", open), None);
        assert_eq!(refused("64:ff9b::7f00:1", &format!("{open},127.0.0.0/8")), None);
        assert_eq!(refused("64:ff9b::808:808", ""), Some("a NAT64 address"));
    }

    #[test]
    fn a_mapped_address_is_the_one_that_it_maps() {
        assert_eq!(refused("::ffff:127.0.0.1", ""), Some("a loopback address"));
        assert_eq!(refused("::ffff:127.0.0.1", "127.0.0.0/8"), None);
        assert_eq!(refused("::ffff:8.8.8.8", ""), None);
    }
}
