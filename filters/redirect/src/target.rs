//! What a request asks for, and where a template leads.

/// The parts of a request that redirects look at.
pub struct Request<'a> {
    pub secure: bool,
    /// In the case it came in, without port and without the root's trailing dot.
    pub host: &'a [u8],
    /// With the port.
    authority: &'a [u8],
    pub path: &'a [u8],
    /// Without the question mark; None if there is none.
    pub query: Option<&'a [u8]>,
    pub method: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn new(scheme: &'a [u8], authority: &'a [u8], target: &'a [u8], method: &'a [u8]) -> Self {
        let target = &target[..position(target, b'#').unwrap_or(target.len())];
        let (path, query) = match position(target, b'?') {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        };
        Request { secure: scheme.eq_ignore_ascii_case(b"https"), host: bare_host(authority), authority, path, query, method }
    }

    /// Whether a location is the address of this request.
    pub fn is_at(&self, location: &[u8]) -> bool {
        let mut here = Vec::new();
        if location.first() != Some(&b'/') {
            here.extend_from_slice(if self.secure { b"https://" } else { b"http://" });
            here.extend(self.authority.iter().map(u8::to_ascii_lowercase));
        }
        push_path(&mut here, self.path);
        push_query(&mut here, self.query);
        here == location
    }
}

fn position(text: &[u8], byte: u8) -> Option<usize> {
    text.iter().position(|&one| one == byte)
}

/// Without a port and the root's dot. An address of IPv6 keeps its brackets.
fn bare_host(authority: &[u8]) -> &[u8] {
    let mut host = authority;
    if let Some(colon) = authority.iter().rposition(|&byte| byte == b':') {
        let inside_brackets = authority.first() == Some(&b'[') && !authority[..colon].ends_with(b"]");
        if !inside_brackets && authority[colon + 1..].iter().all(u8::is_ascii_digit) {
            host = &authority[..colon];
        }
    }
    host.strip_suffix(b".").unwrap_or(host)
}

/// Appends a path: one slash in front, because two would begin a host, and so would a backslash in a browser.
pub fn push_path(location: &mut Vec<u8>, path: &[u8]) {
    let rest = path.iter().position(|&byte| byte != b'/' && byte != b'\\').unwrap_or(path.len());
    location.push(b'/');
    push_encoded(location, &path[rest..]);
}

pub fn push_query(location: &mut Vec<u8>, query: Option<&[u8]>) {
    if let Some(query) = query {
        location.push(b'?');
        push_encoded(location, query);
    }
}

/// Appends bytes; those that a URI has no place for are percent-encoded (RFC 3986).
fn push_encoded(location: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
            location.push(byte);
        } else {
            location.extend_from_slice(&[b'%', b"0123456789ABCDEF"[usize::from(byte >> 4)], b"0123456789ABCDEF"[usize::from(byte & 15)]]);
        }
    }
}

enum Part {
    Literal(String),
    Host,
    Path,
    Rest,
}

/// Where a rule leads: `/path` or `https://host/path`, with `{host}`, `{path}` and `{rest}` in it.
pub struct Target {
    /// Scheme and host; empty if it stays where it is.
    origin: Vec<Part>,
    path: Vec<Part>,
    fragment: String,
    pub has_query: bool,
}

impl Target {
    pub fn parse(text: &str, has_prefix: bool) -> Result<Target, String> {
        if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"\"<>\\^`|".contains(&byte)) {
            return Err("has characters that a URL cannot have".into());
        }
        let (text, fragment) = match text.find('#') {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        };
        if fragment.contains('{') {
            return Err("no variables after '#'".into());
        }
        let (origin, path) = if text.starts_with('/') {
            ("", text)
        } else {
            let scheme = ["https://", "http://"].iter().find(|scheme| text.starts_with(**scheme));
            let start = scheme.ok_or("must begin with '/', 'https://' or 'http://'")?.len();
            let end = text[start..].find(|c| c == '/' || c == '?').unwrap_or(text.len() - start) + start;
            // `https://host{path}`: a path always begins with a slash.
            let end = text[start..end].find("{path}").map_or(end, |at| at + start);
            let host = &text[start..end];
            if host.is_empty() || host.contains('@') {
                return Err("must have a host, without a user".into());
            }
            if host.replace("{host}", "").contains(|c| c == '{' || c == '}') {
                return Err("only {host} can be a part of the host; write '/' after it".into());
            }
            text.split_at(end)
        };
        if text.starts_with("//") {
            return Err("two slashes would begin a host; write 'https://'".into());
        }
        let path = parts(path, has_prefix)?;
        let has_query = text.contains('?');
        Ok(Target { origin: parts(origin, has_prefix)?, path, fragment: fragment.to_owned(), has_query })
    }

    pub fn needs_host(&self) -> bool {
        self.origin.iter().chain(&self.path).any(|part| matches!(part, Part::Host))
    }

    /// The address; `rest` is what follows the rule's prefix.
    pub fn resolve(&self, request: &Request, rest: &[u8], keep_query: bool) -> Vec<u8> {
        let mut location = Vec::new();
        expand(&self.origin, request, rest, &mut location);
        let mut path = Vec::new();
        expand(&self.path, request, rest, &mut path);
        if path.first() == Some(&b'/') {
            push_path(&mut location, &path);
        } else {
            location.push(b'/');
            push_encoded(&mut location, &path);
        }
        if let (true, Some(query)) = (keep_query, request.query) {
            location.push(if self.has_query { b'&' } else { b'?' });
            push_encoded(&mut location, query);
        }
        location.extend_from_slice(self.fragment.as_bytes());
        location
    }
}

fn expand(parts: &[Part], request: &Request, rest: &[u8], out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Part::Host => out.extend(request.host.iter().map(u8::to_ascii_lowercase)),
            Part::Path => out.extend_from_slice(request.path),
            Part::Rest => out.extend_from_slice(rest),
        }
    }
}

fn parts(mut text: &str, has_prefix: bool) -> Result<Vec<Part>, String> {
    let mut found = Vec::new();
    while let Some(start) = text.find('{') {
        let end = text.find('}').filter(|end| *end > start).ok_or("a '{' without its '}'")?;
        if start > 0 {
            found.push(Part::Literal(text[..start].to_owned()));
        }
        found.push(match &text[start + 1..end] {
            "host" => Part::Host,
            "path" => Part::Path,
            "rest" if has_prefix => Part::Rest,
            "rest" => return Err("{rest} is what follows a prefix, and there is none".into()),
            other => return Err(format!("unknown variable '{{{other}}}'; known are {{host}}, {{path}} and {{rest}}")),
        });
        text = &text[end + 1..];
    }
    if !text.is_empty() {
        found.push(Part::Literal(text.to_owned()));
    }
    Ok(found)
}
