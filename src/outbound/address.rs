//! Which addresses a name may lead to.
//!
//! Owns the table of ranges that are not the public internet. Whatever is in none of them is public; of IPv6 only what is
//! assigned for the public internet, and no form that carries an IPv4 address inside. Resolves nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is that the public internet does not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// This machine.
    Loopback,
    /// Somebody's own network.
    Private,
    /// No service that anybody could mean by a name.
    Forbidden(&'static str),
}

impl Special {
    /// As messages name it.
    pub fn what(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::Private => "an address of a private network",
            Self::Forbidden(what) => what,
        }
    }
}

const UNSPECIFIED: Special = Special::Forbidden("an address of no machine");
const LINK_LOCAL: Special = Special::Forbidden("a link-local address");
const METADATA: Special = Special::Forbidden("the metadata service of a cloud");
const MULTICAST: Special = Special::Forbidden("a multicast address");
const RESERVED: Special = Special::Forbidden("a reserved address");
const EMBEDDED: Special = Special::Forbidden("an IPv6 address with an IPv4 address inside");

/// Where clouds hand out the credentials of their machines, beyond 169.254.0.0/16. They come before the ranges.
const METADATA_V4: [[u8; 4]; 4] = [[169, 254, 169, 254], [100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]];
const METADATA_V6: [[u16; 8]; 2] = [[0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254], [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]];

/// IANA's special-purpose registry, IPv4: address, prefix length.
const RANGES_V4: [([u8; 4], u32, Special); 15] = [
    ([0, 0, 0, 0], 8, UNSPECIFIED),
    ([10, 0, 0, 0], 8, Special::Private),
    ([100, 64, 0, 0], 10, Special::Private),
    ([127, 0, 0, 0], 8, Special::Loopback),
    ([169, 254, 0, 0], 16, LINK_LOCAL),
    ([172, 16, 0, 0], 12, Special::Private),
    ([192, 0, 0, 0], 24, RESERVED),
    ([192, 0, 2, 0], 24, RESERVED),
    ([192, 88, 99, 0], 24, RESERVED),
    ([192, 168, 0, 0], 16, Special::Private),
    ([198, 18, 0, 0], 15, RESERVED),
    ([198, 51, 100, 0], 24, RESERVED),
    ([203, 0, 113, 0], 24, RESERVED),
    ([224, 0, 0, 0], 4, MULTICAST),
    ([240, 0, 0, 0], 4, RESERVED),
];

/// The same for IPv6; the first that fits counts.
const RANGES_V6: [([u16; 8], u32, Special); 13] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, UNSPECIFIED),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Special::Loopback),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, EMBEDDED),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, EMBEDDED),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 32, EMBEDDED),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, EMBEDDED),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, RESERVED),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, RESERVED),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, EMBEDDED),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, RESERVED),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Special::Private),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST),
];

/// What is special about `ip`; `None`: it is public.
pub fn special(ip: IpAddr) -> Option<Special> {
    match ip {
        IpAddr::V4(ip) => special_v4(ip),
        IpAddr::V6(ip) => special_v6(ip),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<Special> {
    if METADATA_V4.contains(&ip.octets()) {
        return Some(METADATA);
    }
    let inside = |(base, length, _): &&([u8; 4], u32, Special)| {
        let shift = 32 - length;
        u32::from(ip) >> shift == u32::from(Ipv4Addr::from(*base)) >> shift
    };
    RANGES_V4.iter().find(inside).map(|(.., special)| *special)
}

fn special_v6(ip: Ipv6Addr) -> Option<Special> {
    if METADATA_V6.contains(&ip.segments()) {
        return Some(METADATA);
    }
    let inside = |(base, length, _): &&([u16; 8], u32, Special)| {
        let shift = 128 - length;
        u128::from(ip) >> shift == u128::from(Ipv6Addr::from(*base)) >> shift
    };
    let listed = RANGES_V6.iter().find(inside).map(|(.., special)| *special);
    // 2000::/3 is all that was ever assigned for the public internet.
    listed.or_else(|| (ip.segments()[0] >> 13 != 1).then_some(RESERVED))
}
