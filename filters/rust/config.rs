//! Reading a filter's JSON configuration, with the path of what is wrong in every refusal.
//!
//! `let map = config::parse(&bytes)?.into_map("the configuration")?` and then, key by key, what `Value` offers. An error is
//! a line for the log. serde_json reads; unlike its own `Value`, this one refuses a key that appears twice.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

pub enum Value {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

pub type Result<T> = std::result::Result<T, String>;

/// The configuration, which must be a mapping.
pub fn parse(source: &[u8]) -> Result<Vec<(String, Value)>> {
    serde_json::from_slice::<Value>(source).map_err(|error| format!("not JSON: {error}"))?.into_map("the configuration")
}

/// What to say of a key that is not known.
pub fn unknown<T>(path: &str, key: &str) -> Result<T> {
    Err(format!("{path}: unknown key {key:?}"))
}

impl Value {
    pub fn into_map(self, path: &str) -> Result<Vec<(String, Value)>> {
        match self {
            Value::Map(entries) => Ok(entries),
            _ => Err(format!("{path}: must be a mapping")),
        }
    }

    pub fn into_list(self, path: &str) -> Result<Vec<Value>> {
        match self {
            Value::List(items) => Ok(items),
            _ => Err(format!("{path}: must be a list")),
        }
    }

    pub fn into_text(self, path: &str) -> Result<String> {
        match self {
            Value::Text(text) => Ok(text),
            _ => Err(format!("{path}: must be a string")),
        }
    }

    /// Texts, each of them checked and changed by `each`, which gets the path of the item.
    pub fn into_texts(self, path: &str, each: impl Fn(String, &str) -> Result<String>) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for (index, item) in self.into_list(path)?.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            texts.push(each(item.into_text(&path)?, &path)?);
        }
        Ok(texts)
    }

    pub fn into_bool(self, path: &str) -> Result<bool> {
        match self {
            Value::Bool(truth) => Ok(truth),
            _ => Err(format!("{path}: must be true or false")),
        }
    }

    /// A whole number within limits, both included.
    pub fn into_integer(self, path: &str, least: u32, most: u32) -> Result<u32> {
        match self {
            Value::Number(number) if number.fract() == 0.0 && number >= least.into() && number <= most.into() => Ok(number as u32),
            _ => Err(format!("{path}: must be a whole number from {least} to {most}")),
        }
    }

    /// The index of a text among `names`.
    pub fn into_choice(self, path: &str, names: &[&str]) -> Result<usize> {
        let found = match &self {
            Value::Text(text) => names.iter().position(|name| name == text),
            _ => None,
        };
        found.ok_or_else(|| format!("{path}: must be one of {}", names.join(", ")))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        source.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, text: &mut fmt::Formatter) -> fmt::Result {
        text.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> std::result::Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = source.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> std::result::Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        while let Some((key, value)) = source.next_entry::<String, Value>()? {
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom(format!("the key {key:?} appears twice")));
            }
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}
