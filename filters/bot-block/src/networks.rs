//! Networks, and where a client is.

use crate::config::Result;
use std::net::IpAddr;

pub struct Network {
    address: u128,
    mask: u128,
}

impl Network {
    /// An address or a range; an IPv4 one is kept as an IPv4-mapped one of IPv6.
    pub fn parse(text: &str, path: &str) -> Result<Self> {
        let wrong = || format!("{path}: '{text}' is no address and no range such as 192.0.2.0/24");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(length.parse::<u32>().map_err(|_| wrong())?))
            }
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(bits);
        if length > bits {
            return Err(wrong());
        }
        let mask = u128::MAX.checked_shl(bits - length).unwrap_or(0) | if bits == 32 { u128::MAX << 32 } else { 0 };
        let address = number(address);
        if address & !mask != 0 {
            return Err(format!("{path}: '{text}' has bits behind its prefix"));
        }
        Ok(Network { address, mask })
    }

    pub fn has(&self, address: IpAddr) -> bool {
        number(address) & self.mask == self.address
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Who connected, or, if that is a trusted proxy, the last address in x-forwarded-for that is none. What stands before it may
/// be a lie, so an entry that is no address is nobody.
pub fn client(peer: &[u8], forwarded: &[&Vec<u8>], trusted: &[Network]) -> Option<IpAddr> {
    let mut client = without_port(peer)?;
    let entries = forwarded.iter().flat_map(|value| value.split(|&byte| byte == b','));
    for entry in entries.collect::<Vec<_>>().into_iter().rev() {
        if !trusted.iter().any(|one| one.has(client)) {
            break;
        }
        client = std::str::from_utf8(entry).ok()?.trim_matches(&[' ', '\t'][..]).parse().ok()?;
    }
    Some(client)
}

/// Of `192.0.2.1:80` and `[::1]:80`.
fn without_port(peer: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(peer).ok()?;
    let (address, _) = text.rsplit_once(':')?;
    address.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
