//! What is never shown: values whose name says that they are secret.

pub const INSTEAD: &[u8] = b"[redacted]";

/// Names that have one of these in them. `session` and `sid` are as good as a password while they last.
const SECRET: &[&str] = &[
    "authorization", "cookie", "password", "passwd", "secret", "token", "api-key", "apikey", "api_key", "session", "signature",
    "credential", "private", "jwt", "assertion", "otp",
];

/// Names that are one of these.
const SECRET_NAMES: &[&str] = &["auth", "code", "key", "pass", "pin", "pwd", "sid", "sig"];

pub struct Redaction {
    /// Names besides, in lower case.
    pub also: Vec<String>,
    /// Names that are shown all the same.
    pub except: Vec<String>,
}

impl Redaction {
    /// Of the name of a header or of a parameter.
    pub fn hides(&self, name: &[u8]) -> bool {
        let name = name.to_ascii_lowercase();
        let is = |one: &str| one.as_bytes() == name;
        if self.except.iter().any(|one| is(one)) {
            return false;
        }
        let has = |one: &&str| (0..name.len()).any(|at| name[at..].starts_with(one.as_bytes()));
        self.also.iter().any(|one| is(one)) || SECRET_NAMES.iter().any(|one| is(one)) || SECRET.iter().any(has)
    }

    /// A URL, a request's target, or any other text, with the values of such parameters replaced, and without user information.
    pub fn target(&self, text: &[u8]) -> Vec<u8> {
        let (place, mut rest) = text.split_at(text.iter().position(|&byte| byte == b'?' || byte == b'#').unwrap_or(text.len()));
        let mut out = without_user(place);
        while !rest.is_empty() {
            out.push(rest[0]); // what came before the parameter
            let end = rest[1..].iter().position(|byte| b"?#&;".contains(byte)).map_or(rest.len(), |at| at + 1);
            let parameter = &rest[1..end];
            match parameter.iter().position(|&byte| byte == b'=') {
                Some(equals) if self.hides(&decoded(&parameter[..equals])) => {
                    out.extend_from_slice(&parameter[..=equals]);
                    out.extend_from_slice(INSTEAD);
                }
                _ => out.extend_from_slice(parameter),
            }
            rest = &rest[end..];
        }
        out
    }
}

/// `https://user:password@host/` without what stands before the '@'.
fn without_user(place: &[u8]) -> Vec<u8> {
    let start = match place.windows(3).position(|three| three == b"://") {
        Some(at) => at + 3,
        None => return place.to_vec(),
    };
    let end = place[start..].iter().position(|&byte| byte == b'/').map_or(place.len(), |at| start + at);
    match place[start..end].iter().rposition(|&byte| byte == b'@') {
        Some(at) => [&place[..start], &place[start + at + 1..]].concat(),
        None => place.to_vec(),
    }
}

/// Percent-encoding undone, until there is none: servers in a row may each undo one.
fn decoded(name: &[u8]) -> Vec<u8> {
    let mut name = name.to_vec();
    for _ in 0..3 {
        if !name.contains(&b'%') {
            break;
        }
        let mut out = Vec::with_capacity(name.len());
        let mut at = 0;
        while at < name.len() {
            let digit = |index: usize| name.get(index).and_then(|&byte| char::from(byte).to_digit(16));
            match (name[at], digit(at + 1), digit(at + 2)) {
                (b'%', Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                }
                (byte, _, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        name = out;
    }
    name
}
