//! What a configuration comes to.

use crate::config::{self, Result, Value};
use crate::target::{Request, Target};

/// Of a redirect that only adds or removes a slash: permanent, and methods stay.
pub const SLASH_STATUS: u32 = 308;

const MOST_RULES: usize = 1000;

pub struct Settings {
    hosts: Vec<String>,
    pub rules: Vec<Rule>,
    pub https: Option<Https>,
    pub slash: Option<Slash>,
    pub trust_forwarded_proto: bool,
    pub cache_control: Option<String>,
}

impl Settings {
    /// Whether that host is one of ours.
    pub fn knows(&self, host: &[u8]) -> bool {
        self.hosts.iter().any(|pattern| host_matches(pattern, host))
    }
}

/// `*.example.com` takes subdomains at any depth, and not example.com.
fn host_matches(pattern: &str, host: &[u8]) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            let at = host.len().saturating_sub(suffix.len());
            let sub = host[..at].iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            at > 0 && sub && host[at..].eq_ignore_ascii_case(suffix.as_bytes())
        }
        None => host.eq_ignore_ascii_case(pattern.as_bytes()),
    }
}

enum Place {
    Any,
    Path(String),
    Prefix(String),
}

pub struct Rule {
    pub host: Option<String>,
    place: Place,
    methods: Option<Vec<String>>,
    pub to: Target,
    pub status: u32,
    keep_query: bool,
}

impl Rule {
    pub fn takes(&self, request: &Request) -> bool {
        let place = match &self.place {
            Place::Any => true,
            Place::Path(path) => request.path == path.as_bytes(),
            Place::Prefix(prefix) => request.path.starts_with(prefix.as_bytes()),
        };
        place
            && self.host.as_ref().map_or(true, |pattern| host_matches(pattern, request.host))
            && self.methods.as_ref().map_or(true, |methods| methods.iter().any(|one| one.as_bytes() == request.method))
    }

    pub fn location(&self, request: &Request) -> Vec<u8> {
        let rest = match &self.place {
            Place::Prefix(prefix) => &request.path[prefix.len()..],
            _ => b"",
        };
        self.to.resolve(request, rest, self.keep_query)
    }
}

pub struct Https {
    pub status: u32,
    port: u32,
    except: Vec<String>,
}

impl Https {
    pub fn takes(&self, request: &Request) -> bool {
        !request.secure && !self.except.iter().any(|prefix| request.path.starts_with(prefix.as_bytes()))
    }

    /// `https://host`, of a host that is known.
    pub fn origin(&self, request: &Request) -> Vec<u8> {
        let mut origin = b"https://".to_vec();
        origin.extend(request.host.iter().map(u8::to_ascii_lowercase));
        if self.port != 443 {
            origin.extend_from_slice(format!(":{}", self.port).as_bytes());
        }
        origin
    }
}

pub enum Slash {
    Add,
    Remove,
}

impl Slash {
    /// The path as it should be; None if it is so, and for methods with a body. A last segment with a dot is a file.
    pub fn path(&self, request: &Request) -> Option<Vec<u8>> {
        let path = request.path;
        if request.method != b"GET" && request.method != b"HEAD" {
            return None;
        }
        match self {
            Slash::Add => {
                let last = path.rsplit(|&byte| byte == b'/').next()?;
                (!last.is_empty() && !last.contains(&b'.')).then(|| [path, b"/"].concat())
            }
            Slash::Remove => {
                let end = path.iter().rposition(|&byte| byte != b'/')?;
                (end + 1 < path.len()).then(|| path[..=end].to_vec())
            }
        }
    }
}

// ---- reading ----

pub fn read(source: &[u8]) -> Result<Settings> {
    if source.is_empty() {
        return Err("there is none".into());
    }
    let mut settings = Settings {
        hosts: Vec::new(),
        rules: Vec::new(),
        https: None,
        slash: None,
        trust_forwarded_proto: false,
        cache_control: None,
    };
    for (key, value) in config::parse(source)? {
        match key.as_str() {
            "hosts" => settings.hosts = value.into_texts(&key, read_host)?,
            "rules" => settings.rules = read_rules(value)?,
            "https" => settings.https = read_https(value)?,
            "trailing_slash" => {
                settings.slash = Some(if value.into_choice(&key, &["add", "remove"])? == 0 { Slash::Add } else { Slash::Remove })
            }
            "trust_forwarded_proto" => settings.trust_forwarded_proto = value.into_bool(&key)?,
            "cache_control" => settings.cache_control = Some(read_header_value(value, &key)?),
            _ => return config::unknown("the configuration", &key),
        }
    }
    if settings.rules.is_empty() && settings.https.is_none() && settings.slash.is_none() {
        return Err("it has no rules, no https and no trailing_slash; nothing would be redirected".into());
    }
    if settings.hosts.is_empty() {
        if settings.https.is_some() {
            return Err("https: needs hosts, a list of those that the client may be sent to".into());
        }
        if let Some(index) = settings.rules.iter().position(|rule| rule.to.needs_host() && rule.host.is_none()) {
            return Err(format!("rules[{index}].to: {{host}} needs the rule's host, or hosts"));
        }
    }
    Ok(settings)
}

fn read_host(text: String, path: &str) -> Result<String> {
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let address = name.starts_with('[') && name.ends_with(']');
    let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if good || address {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{path}: {text:?} is not a host, nor a pattern such as *.example.com; write it without a port"))
}

fn read_header_value(value: Value, path: &str) -> Result<String> {
    let text = value.into_text(path)?;
    match text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        true => Err(format!("{path}: no control characters")),
        false => Ok(text),
    }
}

fn read_status(value: Value, path: &str) -> Result<u32> {
    match value {
        Value::Number(number) if [301.0, 302.0, 303.0, 307.0, 308.0].contains(&number) => Ok(number as u32),
        _ => Err(format!("{path}: must be one of 301, 302, 303, 307, 308")),
    }
}

fn read_path(text: String, path: &str) -> Result<String> {
    match text.starts_with('/') && !text.contains(|c| c == '?' || c == '#') {
        true => Ok(text),
        false => Err(format!("{path}: must begin with '/', without '?' and '#'")),
    }
}

fn read_https(value: Value) -> Result<Option<Https>> {
    let mut https = Https { status: 308, port: 443, except: Vec::new() };
    if let Value::Bool(on) = value {
        return Ok(on.then_some(https));
    }
    for (key, value) in value.into_map("https")? {
        let path = format!("https.{key}");
        match key.as_str() {
            "status" => https.status = read_status(value, &path)?,
            "port" => https.port = value.into_integer(&path, 1, 65535)?,
            "except" => https.except = value.into_texts(&path, read_path)?,
            _ => return config::unknown("https", &key),
        }
    }
    Ok(Some(https))
}

fn read_rules(value: Value) -> Result<Vec<Rule>> {
    let items = value.into_list("rules")?;
    if items.len() > MOST_RULES {
        return Err(format!("rules: {} rules, at most {MOST_RULES} are allowed", items.len()));
    }
    items.into_iter().enumerate().map(|(index, item)| read_rule(item, &format!("rules[{index}]"))).collect()
}

fn read_rule(value: Value, path: &str) -> Result<Rule> {
    let (mut host, mut place, mut methods, mut to, mut status, mut keep_query) = (None, Place::Any, None, None, 301, true);
    for (key, value) in value.into_map(path)? {
        let at = format!("{path}.{key}");
        match key.as_str() {
            "host" => host = Some(read_host(value.into_text(&at)?, &at)?),
            "path" | "prefix" => {
                if !matches!(place, Place::Any) {
                    return Err(format!("{path}: has a path and a prefix; keep one"));
                }
                let text = read_path(value.into_text(&at)?, &at)?;
                place = if key == "path" { Place::Path(text) } else { Place::Prefix(text) };
            }
            "methods" => methods = Some(value.into_texts(&at, |text, _| Ok(text))?),
            "to" => to = Some(value.into_text(&at)?),
            "status" => status = read_status(value, &at)?,
            "query" => keep_query = value.into_choice(&at, &["keep", "drop"])? == 0,
            _ => return config::unknown(path, &key),
        }
    }
    if host.is_none() && matches!(place, Place::Any) {
        return Err(format!("{path}: needs a host, a path or a prefix"));
    }
    let to = to.ok_or_else(|| format!("{path}.to: is missing"))?;
    let to = Target::parse(&to, matches!(place, Place::Prefix(_))).map_err(|reason| format!("{path}.to: {to:?} {reason}"))?;
    Ok(Rule { host, place, methods, to, status, keep_query })
}
