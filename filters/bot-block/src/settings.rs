//! What a configuration comes to.

use crate::config::{self, Result, Value};
use crate::lists::{EMPTY, IMPOSTOR, LISTS};
use crate::networks::Network;
use crate::patterns::{Agent, Patterns};
use std::collections::HashMap;
use std::net::IpAddr;

const MOST_PATTERNS: usize = 1000;
const MOST_LISTS: usize = 64;

pub struct Settings {
    lists: Vec<String>,
    allow: Patterns,
    verified: Vec<Verified>,
    deny: Group,
    tag: Group,
    deny_impostors: bool,
    pub header: String,
    pub status: u32,
    pub body: String,
    pub robots_txt: bool,
    pub trusted_proxies: Vec<Network>,
    /// By list and action.
    pub counters: HashMap<(String, &'static str), u32>,
}

/// Who may call itself so, by where it comes from.
struct Verified {
    agents: Patterns,
    networks: Vec<Network>,
}

#[derive(Default)]
struct Group {
    patterns: Patterns,
    /// The number of the list `empty`, if it is in the group.
    empty: Option<usize>,
    lists: Vec<usize>,
}

pub enum Verdict<'a> {
    Pass,
    Tag(&'a str),
    Deny(&'a str),
}

impl Settings {
    /// Allowed, verified, denied, tagged, in this order. The client's address is asked for where it counts only.
    pub fn judge(&self, agents: &[Agent], client: impl FnOnce() -> Option<IpAddr>) -> Verdict<'_> {
        // More than one is as good as a lie: what is denied of any, is denied; what is allowed has to be so of all.
        if !agents.is_empty() && agents.iter().all(|agent| self.allow.find(agent).is_some()) {
            return Verdict::Pass;
        }
        let claims: Vec<_> = self.verified.iter().filter(|one| agents.iter().any(|agent| one.agents.find(agent).is_some())).collect();
        if !claims.is_empty() {
            let client = client();
            let is_true = |one: &&Verified| client.map_or(false, |address| one.networks.iter().any(|network| network.has(address)));
            return match (claims.iter().all(is_true), self.deny_impostors) {
                (true, _) => Verdict::Pass,
                (false, true) => Verdict::Deny(IMPOSTOR),
                (false, false) => Verdict::Tag(IMPOSTOR),
            };
        }
        match (self.deny.find(agents), self.tag.find(agents)) {
            (Some(list), _) => Verdict::Deny(&self.lists[list]),
            (None, Some(list)) => Verdict::Tag(&self.lists[list]),
            (None, None) => Verdict::Pass,
        }
    }

    /// Every list with what is done about it.
    pub fn outcomes(&self) -> Vec<(&str, &'static str)> {
        let named = |group: &Group, action| group.lists.iter().map(|&list| (self.lists[list].as_str(), action)).collect::<Vec<_>>();
        let mut found = [named(&self.deny, "deny"), named(&self.tag, "tag")].concat();
        if !self.verified.is_empty() {
            found.push((IMPOSTOR, if self.deny_impostors { "deny" } else { "tag" }));
        }
        found
    }
}

impl Group {
    fn find(&self, agents: &[Agent]) -> Option<usize> {
        if agents.iter().all(Agent::is_empty) {
            return self.empty;
        }
        agents.iter().filter_map(|agent| self.patterns.find(agent)).next()
    }
}

pub fn read(source: &[u8]) -> Result<Settings> {
    let mut settings = Settings {
        lists: Vec::new(),
        allow: Patterns::default(),
        verified: Vec::new(),
        deny: Group::default(),
        tag: Group::default(),
        deny_impostors: true,
        header: "x-bot".to_owned(),
        status: 403,
        body: "403 Forbidden\n".to_owned(),
        robots_txt: true,
        trusted_proxies: Vec::new(),
        counters: HashMap::new(),
    };
    let (mut own, mut deny, mut tag) = (HashMap::new(), vec!["@scanners".to_owned()], Vec::new());
    let entries = if source.is_empty() { Vec::new() } else { config::parse(source)? };
    for (key, value) in entries {
        match key.as_str() {
            "lists" => own = read_lists(value)?,
            "allow" => {
                for (index, pattern) in texts(value, "allow")?.iter().enumerate() {
                    settings.allow.add(pattern, 0, &format!("allow[{index}]"))?;
                }
                settings.allow.sort();
            }
            "verify" => settings.verified = read_verified(value)?,
            "deny" => deny = texts(value, "deny")?,
            "tag" => tag = texts(value, "tag")?,
            "impostors" => settings.deny_impostors = value.into_choice("impostors", &["deny", "tag"])? == 0,
            "header" => settings.header = header_name(value.into_text("header")?)?,
            "status" => settings.status = value.into_integer("status", 400, 599)?,
            "body" => settings.body = value.into_text("body")?,
            "robots_txt" => settings.robots_txt = value.into_bool("robots_txt")?,
            "trusted_proxies" => settings.trusted_proxies = networks(value, "trusted_proxies")?,
            _ => return config::unknown("the configuration", &key),
        }
    }
    settings.deny = group("deny", &deny, &own, &mut settings.lists)?;
    settings.tag = group("tag", &tag, &own, &mut settings.lists)?;
    if settings.outcomes().is_empty() {
        return Err("deny and tag are empty, nothing would be done".to_owned());
    }
    Ok(settings)
}

fn texts(value: Value, path: &str) -> Result<Vec<String>> {
    let found = value.into_texts(path, |text, _| Ok(text))?;
    if found.len() > MOST_PATTERNS {
        return Err(format!("{path}: has more than {MOST_PATTERNS} entries"));
    }
    Ok(found)
}

/// Entries that begin with '@' are lists; the others belong to a list of the group's name.
fn group(path: &str, entries: &[String], own: &HashMap<String, Vec<String>>, lists: &mut Vec<String>) -> Result<Group> {
    let mut group = Group::default();
    for (index, entry) in entries.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let name = entry.strip_prefix('@');
        let list = number(name.unwrap_or(path.split('[').next().unwrap_or_default()), lists);
        if !group.lists.contains(&list) {
            group.lists.push(list);
        }
        let built_in = |name: &str| LISTS.iter().find(|(one, _)| *one == name).map(|(_, patterns)| *patterns);
        match name {
            None => group.patterns.add(entry, list, &path)?,
            Some(EMPTY) => group.empty = Some(list),
            Some(name) => match (own.get(name), built_in(name)) {
                (Some(patterns), _) => patterns.iter().try_for_each(|one| group.patterns.add(one, list, &format!("lists.{name}")))?,
                (None, Some(patterns)) => patterns.iter().try_for_each(|one| group.patterns.add(one, list, &path))?,
                (None, None) => return Err(format!("{path}: there is no list '{name}'")),
            },
        }
    }
    group.patterns.sort();
    Ok(group)
}

fn number(name: &str, lists: &mut Vec<String>) -> usize {
    lists.iter().position(|one| one == name).unwrap_or_else(|| {
        lists.push(name.to_owned());
        lists.len() - 1
    })
}

fn read_lists(value: Value) -> Result<HashMap<String, Vec<String>>> {
    let mut lists = HashMap::new();
    for (name, patterns) in value.into_map("lists")? {
        let good = !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !good {
            return Err(format!("lists.{name:?}: a name has 1 to 32 letters, digits, '-' and '_'"));
        }
        if LISTS.iter().any(|(one, _)| *one == name) || [EMPTY, IMPOSTOR, "deny", "tag"].contains(&name.as_str()) {
            return Err(format!("lists.{name}: is the name of a list that there is already"));
        }
        let patterns = texts(patterns, &format!("lists.{name}"))?;
        lists.insert(name, patterns);
    }
    if lists.len() > MOST_LISTS {
        return Err(format!("lists: has more than {MOST_LISTS} entries"));
    }
    Ok(lists)
}

fn read_verified(value: Value) -> Result<Vec<Verified>> {
    let mut found = Vec::new();
    for (index, item) in value.into_list("verify")?.into_iter().enumerate() {
        let path = format!("verify[{index}]");
        let mut one = Verified { agents: Patterns::default(), networks: Vec::new() };
        for (key, value) in item.into_map(&path)? {
            match key.as_str() {
                "agents" => {
                    let path = format!("{path}.agents");
                    texts(value, &path)?.iter().try_for_each(|pattern| one.agents.add(pattern, 0, &path))?;
                }
                "from" => one.networks = networks(value, &format!("{path}.from"))?,
                _ => return config::unknown(&path, &key),
            }
        }
        if one.agents.is_empty() || one.networks.is_empty() {
            return Err(format!("{path}: needs agents and from"));
        }
        one.agents.sort();
        found.push(one);
    }
    Ok(found)
}

fn networks(value: Value, path: &str) -> Result<Vec<Network>> {
    let texts = texts(value, path)?;
    texts.iter().enumerate().map(|(index, text)| Network::parse(text, &format!("{path}[{index}]"))).collect()
}

/// RFC 9110 section 5.6.2; what frames or routes a message is not for tags.
fn header_name(name: String) -> Result<String> {
    let name = name.to_ascii_lowercase();
    let good = !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let taken = ["connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"];
    if !good || taken.contains(&name.as_str()) {
        return Err(format!("header: {name:?} is not a name that a tag can have"));
    }
    Ok(name)
}
