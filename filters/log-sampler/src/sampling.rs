//! Which requests are chosen, and how many lines there are in a second.

use proxy_wasm::types::Bytes;

/// What there is to know of a request at its end.
pub struct Outcome<'a> {
    /// 0: the client got none.
    pub status: u32,
    pub milliseconds: u64,
    pub request: &'a [(String, Bytes)],
    pub response: &'a [(String, Bytes)],
}

/// `hash` is a number that is as likely as any other.
pub fn is_chosen(rate: f64, hash: u64) -> bool {
    (hash >> 11) as f64 / (1u64 << 53) as f64 <= rate && rate > 0.0
}

/// FNV-1a, then mixed: not for what an attacker may not foresee, but the same everywhere.
pub fn hash(text: &[u8]) -> u64 {
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The last steps of splitmix64.
pub fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// A token bucket: so many lines a second, and as many at once.
pub struct Bucket {
    per_second: u32,
    /// In lines times 10^9.
    level: u64,
    at: u64,
    dropped: u64,
}

const LINE: u64 = 1_000_000_000;

impl Bucket {
    pub fn new(per_second: u32) -> Self {
        Bucket { per_second, level: u64::from(per_second) * LINE, at: 0, dropped: 0 }
    }

    /// Takes a line at that time in nanoseconds: how many have been left out since the last one, or nothing if there is none left.
    pub fn take(&mut self, now: u64) -> Option<u64> {
        let most = u64::from(self.per_second) * LINE;
        let passed = now.saturating_sub(self.at).min(LINE);
        self.level = (self.level + passed * u64::from(self.per_second)).min(most);
        self.at = self.at.max(now);
        if self.level < LINE {
            self.dropped += 1;
            return None;
        }
        self.level -= LINE;
        Some(std::mem::take(&mut self.dropped))
    }
}
