//! The exceptions that the server's owner makes: ranges of addresses that may be reached although
//! they are not public.

use std::net::IpAddr;

/// Ranges that are open; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Cidr>);

/// A text that is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a range such as `10.1.0.0/16` or `::1/128`, got `{text}`")]
pub struct InvalidCidr {
    /// The text, cut at 64 characters.
    pub text: String,
}

/// The addresses whose first `bits` are those of `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cidr {
    pub(super) first: IpAddr,
    pub(super) bits: u8,
}

impl AllowList {
    /// Reads ranges with commas between; an address alone is a range of one.
    ///
    /// # Errors
    ///
    /// One of them is none, or has bits set behind its prefix: then another was meant.
    pub fn parse(text: &str) -> Result<Self, InvalidCidr> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(Cidr::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the ranges holds `address`.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.holds(address))
    }
}

impl Cidr {
    pub(super) fn new(first: IpAddr, bits: u8) -> Result<Self, InvalidCidr> {
        let range = Self { first, bits };
        let is_fine = bits <= width(first) && range.masked(first) == number(first);
        if is_fine { Ok(range) } else { Err(invalid(&format!("{first}/{bits}"))) }
    }

    fn parse(text: &str) -> Result<Self, InvalidCidr> {
        let (first, bits) = match text.split_once('/') {
            Some((first, bits)) => (first, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| invalid(text))?;
        let bits = bits.map_or(Ok(width(first)), str::parse).map_err(|_| invalid(text))?;
        Self::new(first, bits)
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        width(address) == width(self.first) && self.masked(address) == self.masked(self.first)
    }

    fn masked(&self, address: IpAddr) -> u128 {
        let behind = width(address).saturating_sub(self.bits);
        number(address).checked_shr(behind.into()).map_or(0, |number| number << behind)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn invalid(text: &str) -> InvalidCidr {
    InvalidCidr { text: text.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(list: &str, address: &str) -> bool {
        AllowList::parse(list).unwrap().holds(address.parse().unwrap())
    }

    #[test]
    fn a_range_holds_what_has_its_prefix() {
        let cases = [
            ("", "10.0.0.1", false),
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.0.0.0/8, ::1", "::1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("fc00::/7", "fdff::1", true),
            ("fc00::/7", "fe00::1", false),
        ];
        for (list, address, expected) in cases {
            assert_eq!(holds(list, address), expected, "{list} {address}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0", "localhost", "10.0.0.0/", "/8"]
        {
            assert!(AllowList::parse(text).is_err(), "{text}");
        }
    }
}
