//! redirect: answers requests with 301, 302, 303, 307 or 308, by rules, to https, or for a trailing slash.
//!
//! Where a redirect leads is never up to the client: what it sent can become part of a path or a query, of a host only if
//! the configuration names that host.

use log::error;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::rc::Rc;

#[path = "../../rust/config.rs"]
mod config;
mod settings;
mod target;

use settings::{Settings, Slash};
use target::Request;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { settings: None }));
}}

struct Root {
    settings: Option<Rc<Settings>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match settings::read(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => {
                self.settings = Some(Rc::new(settings));
                true
            }
            Err(reason) => {
                error!("redirect: configuration refused: {reason}");
                false
            }
        }
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { settings: self.settings.clone()? }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    settings: Rc<Settings>,
}

/// What to do with a request.
enum Verdict {
    Pass,
    Redirect(u32, Vec<u8>),
    UnknownHost,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        // As bytes: a path need not be valid UTF-8, and the functions for strings panic if it is not.
        let header = |name| self.get_http_request_header_bytes(name).unwrap_or_default();
        let forwarded = if self.settings.trust_forwarded_proto { header("x-forwarded-proto") } else { Vec::new() };
        let scheme = if forwarded.is_empty() { header(":scheme") } else { forwarded };
        let (path, host, method) = (header(":path"), header(":authority"), header(":method"));
        match judge(&self.settings, &Request::new(&scheme, &host, &path, &method)) {
            Verdict::Pass => return Action::Continue,
            Verdict::Redirect(status, location) => self.redirect(status, &location),
            Verdict::UnknownHost => self.send_http_response(421, vec![("content-type", "text/plain")], Some(b"421 Misdirected Request\n")),
        }
        Action::Pause
    }
}

impl Stream {
    fn redirect(&self, status: u32, location: &[u8]) {
        // `target` lets through nothing but ASCII.
        let location = String::from_utf8_lossy(location);
        let mut headers = vec![("location", location.as_ref()), ("content-type", "text/plain")];
        if let Some(value) = &self.settings.cache_control {
            headers.push(("cache-control", value));
        }
        self.send_http_response(status, headers, Some(b"redirected\n"));
    }
}

/// The first rule that takes the request; else https and the trailing slash, both in one step.
fn judge(settings: &Settings, request: &Request) -> Verdict {
    // `*` of OPTIONS and the authority of CONNECT are no paths.
    if !request.path.starts_with(b"/") {
        return Verdict::Pass;
    }
    let upgrade = settings.https.as_ref().filter(|https| https.takes(request));
    for rule in &settings.rules {
        if !rule.takes(request) {
            continue;
        }
        if rule.to.needs_host() && rule.host.is_none() && !settings.knows(request.host) {
            return Verdict::UnknownHost;
        }
        let mut location = rule.location(request);
        if let (Some(https), b'/') = (upgrade, location[0]) {
            if !settings.knows(request.host) {
                return Verdict::UnknownHost;
            }
            location.splice(..0, https.origin(request));
        }
        // One that leads to where the client is already would never end.
        return if request.is_at(&location) { Verdict::Pass } else { Verdict::Redirect(rule.status, location) };
    }
    let slash = settings.slash.as_ref().and_then(|slash| Slash::path(slash, request));
    if slash.is_none() && upgrade.is_none() {
        return Verdict::Pass;
    }
    let mut location = Vec::new();
    if let Some(https) = upgrade {
        if !settings.knows(request.host) {
            return Verdict::UnknownHost;
        }
        location = https.origin(request);
    }
    target::push_path(&mut location, slash.as_deref().unwrap_or(request.path));
    target::push_query(&mut location, request.query);
    Verdict::Redirect(upgrade.map_or(settings::SLASH_STATUS, |https| https.status), location)
}
