//! What a configuration comes to.

use crate::config::{self, Result, Value};
use crate::redaction::Redaction;
use crate::sampling::Outcome;
use std::collections::HashSet;

const MOST: usize = 100;

pub struct Settings {
    rules: Vec<Rule>,
    rate: f64,
    /// The request header by which streams are chosen.
    pub by: Option<String>,
    pub fields: Vec<Field>,
    /// The names of all fields of the request's head that are asked for.
    pub request_fields: HashSet<String>,
    pub redaction: Redaction,
    pub lines_per_second: u32,
    pub longest_line: usize,
    pub longest_value: usize,
}

/// What a line may have; of those with a name of their own, how it is called there.
pub enum Field {
    Status,
    Duration,
    Method,
    Authority,
    Path,
    Request(String, String),
    Response(String, String),
    Property(Vec<String>, String),
}

impl Field {
    pub fn name(&self) -> &str {
        match self {
            Field::Status => "status",
            Field::Duration => "duration_ms",
            Field::Method => "method",
            Field::Authority => "authority",
            Field::Path => "path",
            Field::Request(_, name) | Field::Response(_, name) | Field::Property(_, name) => name,
        }
    }
}

struct Rule {
    name: String,
    rate: f64,
    statuses: Vec<(u32, u32)>,
    slower_than: Option<u32>,
    methods: Vec<String>,
    prefix: Option<String>,
    request: Vec<Header>,
    response: Vec<Header>,
}

/// A header that is there, or has that value.
struct Header {
    name: String,
    value: Option<String>,
}

impl Header {
    fn is_in(&self, fields: &[(String, Vec<u8>)]) -> bool {
        let wanted = |value: &[u8]| self.value.as_ref().map_or(true, |text| text.as_bytes() == value);
        fields.iter().any(|(name, value)| *name == self.name && wanted(value))
    }
}

impl Rule {
    /// All that it says has to be true.
    fn takes(&self, outcome: &Outcome) -> bool {
        let one = |name: &str| outcome.request.iter().find(|(field, _)| field == name).map_or(&b""[..], |(_, value)| value);
        (self.statuses.is_empty() || self.statuses.iter().any(|&(low, high)| low <= outcome.status && outcome.status <= high))
            && self.slower_than.map_or(true, |milliseconds| outcome.milliseconds >= milliseconds.into())
            && (self.methods.is_empty() || self.methods.iter().any(|method| method.as_bytes() == one(":method")))
            && self.prefix.as_ref().map_or(true, |prefix| one(":path").starts_with(prefix.as_bytes()))
            && self.request.iter().all(|header| header.is_in(outcome.request))
            && self.response.iter().all(|header| header.is_in(outcome.response))
    }
}

impl Settings {
    /// The name and the rate of the first rule that takes the request.
    pub fn choose(&self, outcome: &Outcome) -> (&str, f64) {
        let rule = self.rules.iter().find(|rule| rule.takes(outcome));
        rule.map_or(("default", self.rate), |rule| (&rule.name, rule.rate))
    }
}

pub fn read(source: &[u8]) -> Result<Settings> {
    let mut settings = Settings {
        rules: Vec::new(),
        rate: 0.01,
        by: None,
        fields: vec![Field::Method, Field::Path, Field::Status, Field::Duration],
        request_fields: HashSet::new(),
        redaction: Redaction { also: Vec::new(), except: Vec::new() },
        lines_per_second: 20,
        longest_line: 1000,
        longest_value: 256,
    };
    let entries = if source.is_empty() { Vec::new() } else { config::parse(source)? };
    for (key, value) in entries {
        match key.as_str() {
            "rules" => settings.rules = list(value, "rules", read_rule)?,
            "rate" => settings.rate = rate(value, "rate")?,
            "by" => settings.by = Some(header_name(value.into_text("by")?, "by")?),
            "fields" => settings.fields = list(value, "fields", |item, path| field(item.into_text(path)?, path))?,
            "redact" => settings.redaction.also = names(value, "redact")?,
            "show" => settings.redaction.except = names(value, "show")?,
            "lines_per_second" => settings.lines_per_second = value.into_integer("lines_per_second", 1, 1000)?,
            "longest_line" => settings.longest_line = value.into_integer("longest_line", 200, 16384)? as usize,
            "longest_value" => settings.longest_value = value.into_integer("longest_value", 8, 2048)? as usize,
            _ => return config::unknown("the configuration", &key),
        }
    }
    if settings.rate == 0.0 && settings.rules.iter().all(|rule| rule.rate == 0.0) {
        return Err("rate: is 0 everywhere, nothing would be logged".to_owned());
    }
    let asked = settings.fields.iter().filter_map(|field| match field {
        Field::Request(header, _) => Some(header.as_str()),
        _ => None,
    });
    let by_rules = settings.rules.iter().flat_map(|rule| rule.request.iter().map(|header| header.name.as_str()));
    let all = asked.chain(by_rules).chain(settings.by.as_deref()).chain([":method", ":path", ":authority"]);
    settings.request_fields = all.map(str::to_owned).collect();
    Ok(settings)
}

fn list<T>(value: Value, path: &str, read: impl Fn(Value, &str) -> Result<T>) -> Result<Vec<T>> {
    let items = value.into_list(path)?;
    if items.len() > MOST {
        return Err(format!("{path}: has more than {MOST} entries"));
    }
    items.into_iter().enumerate().map(|(index, item)| read(item, &format!("{path}[{index}]"))).collect()
}

fn names(value: Value, path: &str) -> Result<Vec<String>> {
    list(value, path, |item, path| Ok(item.into_text(path)?.to_ascii_lowercase()))
}

fn rate(value: Value, path: &str) -> Result<f64> {
    match value {
        Value::Number(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err(format!("{path}: must be a number from 0 to 1")),
    }
}

fn read_rule(value: Value, path: &str) -> Result<Rule> {
    let mut rule = Rule {
        name: path.to_owned(),
        rate: 1.0,
        statuses: Vec::new(),
        slower_than: None,
        methods: Vec::new(),
        prefix: None,
        request: Vec::new(),
        response: Vec::new(),
    };
    for (key, value) in value.into_map(path)? {
        let at = format!("{path}.{key}");
        match key.as_str() {
            "name" => rule.name = value.into_text(&at)?,
            "rate" => rule.rate = rate(value, &at)?,
            "status" => rule.statuses = list(value, &at, statuses)?,
            "slower_than" => rule.slower_than = Some(value.into_integer(&at, 1, 3_600_000)?),
            "methods" => rule.methods = value.into_texts(&at, |text, _| Ok(text))?,
            "prefix" => rule.prefix = Some(value.into_text(&at)?),
            "request" => rule.request = headers(value, &at)?,
            "response" => rule.response = headers(value, &at)?,
            _ => return config::unknown(path, &key),
        }
    }
    Ok(rule)
}

/// A status, a class such as 5xx, or none.
fn statuses(value: Value, path: &str) -> Result<(u32, u32)> {
    let wrong = || format!("{path}: must be a status, a class such as 5xx, or none");
    match value {
        Value::Text(text) if text == "none" => Ok((0, 0)),
        Value::Text(text) => {
            let class = text.strip_suffix("xx").and_then(|class| class.parse::<u32>().ok());
            class.filter(|class| (1..=5).contains(class)).map(|class| (class * 100, class * 100 + 99)).ok_or_else(wrong)
        }
        value => value.into_integer(path, 100, 599).map(|status| (status, status)).map_err(|_| wrong()),
    }
}

/// By name: a value, or true for any.
fn headers(value: Value, path: &str) -> Result<Vec<Header>> {
    let read = |(name, value): (String, Value)| {
        let at = format!("{path}.{name}");
        let value = match value {
            Value::Bool(true) => None,
            Value::Text(text) => Some(text),
            _ => return Err(format!("{at}: must be a value, or true for any")),
        };
        Ok(Header { name: header_name(name, &at)?, value })
    };
    value.into_map(path)?.into_iter().map(read).collect()
}

fn field(text: String, path: &str) -> Result<Field> {
    Ok(match text.split_once('.') {
        None => match text.as_str() {
            "status" => Field::Status,
            "duration_ms" => Field::Duration,
            "method" => Field::Method,
            "authority" => Field::Authority,
            "path" => Field::Path,
            _ => return Err(format!("{path}: {text:?} is no field; there are method, authority, path, status, duration_ms, request.NAME, response.NAME, property.PATH")),
        },
        Some(("request", name)) => Field::Request(header_name(name.to_owned(), path)?, text.clone()),
        Some(("response", name)) => Field::Response(header_name(name.to_owned(), path)?, text.clone()),
        Some(("property", names)) if !names.is_empty() => Field::Property(names.split('.').map(str::to_owned).collect(), names.to_owned()),
        Some(_) => return Err(format!("{path}: {text:?} is no field")),
    })
}

/// RFC 9110 section 5.6.2, in lower case.
fn header_name(name: String, path: &str) -> Result<String> {
    let name = name.to_ascii_lowercase();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(good) {
        return Err(format!("{path}: {name:?} is not the name of a header"));
    }
    Ok(name)
}
