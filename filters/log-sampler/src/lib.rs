//! log-sampler: writes a line of JSON about a chosen part of the requests.

use log::{error, info};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, LogLevel, MapType};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

#[path = "../../rust/config.rs"]
mod config;
mod line;
mod redaction;
mod sampling;
mod settings;

use line::Line;
use sampling::{Bucket, Outcome};
use settings::{Field, Settings};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { shared: None }));
}}

struct Root {
    shared: Option<Rc<Shared>>,
}

/// What all streams of a VM have.
struct Shared {
    settings: Settings,
    bucket: RefCell<Bucket>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match settings::read(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => {
                let bucket = RefCell::new(Bucket::new(settings.lines_per_second));
                self.shared = Some(Rc::new(Shared { settings, bucket }));
                true
            }
            Err(reason) => {
                error!("log-sampler: configuration refused: {reason}");
                false
            }
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { shared: self.shared.clone()?, id, began: None, request: Vec::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    shared: Rc<Shared>,
    id: u32,
    began: Option<u64>,
    /// The fields of the request's head that rules or lines may ask for, as the client sent them.
    request: Vec<(String, Bytes)>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.began = Some(self.now());
        // At the end a head is what filters and routes have made of it; here it is what came.
        let mut fields = hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default();
        fields.retain(|(name, _)| self.shared.settings.request_fields.contains(name));
        self.request = fields;
        Action::Continue
    }

    fn on_log(&mut self) {
        let settings = &self.shared.settings;
        // Without a beginning the stream ended before this filter was asked.
        let began = match self.began {
            Some(began) => began,
            None => return,
        };
        let now = self.now();
        let response = hostcalls::get_map_bytes(MapType::HttpResponseHeaders).unwrap_or_default();
        let status = first(&response, ":status").and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        let outcome = Outcome { status, milliseconds: now.saturating_sub(began) / 1_000_000, request: &self.request, response: &response };
        let (rule, rate) = settings.choose(&outcome);
        let seed = match &settings.by {
            Some(header) => first(&self.request, header).map(sampling::hash),
            None => None,
        };
        if !sampling::is_chosen(rate, seed.unwrap_or_else(|| sampling::mix(now ^ u64::from(self.id) << 32))) {
            return;
        }
        if let Some(dropped) = self.shared.bucket.borrow_mut().take(now) {
            let line = self.line(rule, rate, &outcome, dropped);
            info!("{line}");
        }
    }
}

impl Stream {
    /// The fields that are asked for, in their order, as far as there is room.
    fn line(&self, rule: &str, rate: f64, outcome: &Outcome, dropped: u64) -> String {
        let settings = &self.shared.settings;
        let mut line = Line::new(settings.longest_line);
        line.text("rule", rule.as_bytes(), false);
        line.raw("rate", &rate.to_string());
        if dropped > 0 {
            line.raw("dropped", &dropped.to_string());
        }
        for field in &settings.fields {
            let name = field.name();
            match field {
                Field::Status => line.raw(name, &outcome.status.to_string()),
                Field::Duration => line.raw(name, &outcome.milliseconds.to_string()),
                Field::Method => self.show(&mut line, name, first(outcome.request, ":method")),
                Field::Authority => self.show(&mut line, name, first(outcome.request, ":authority")),
                Field::Path => self.show(&mut line, name, first(outcome.request, ":path")),
                Field::Request(header, _) => self.header(&mut line, name, header, outcome.request),
                Field::Response(header, _) => self.header(&mut line, name, header, outcome.response),
                Field::Property(path, _) if path.iter().any(|one| settings.redaction.hides(one.as_bytes())) => {
                    line.text(name, redaction::INSTEAD, false);
                }
                Field::Property(path, _) => {
                    let value = self.get_property(path.iter().map(String::as_str).collect());
                    // A query alone has no '?' for its first parameter to stand behind.
                    let query = path.last().map_or(false, |one| one == "query");
                    let value = value.map(|value| if query { [b"?", value.as_slice()].concat() } else { value });
                    self.show(&mut line, name, value.as_deref());
                }
            }
        }
        line.end()
    }

    /// Several fields of a name are one value, joined by commas.
    fn header(&self, line: &mut Line, name: &str, header: &str, fields: &[(String, Bytes)]) {
        let values: Vec<&[u8]> = fields.iter().filter(|(one, _)| one == header).map(|(_, value)| value.as_slice()).collect();
        if values.is_empty() {
            return;
        }
        match self.shared.settings.redaction.hides(header.as_bytes()) {
            true => line.text(name, redaction::INSTEAD, false),
            false => self.show(line, name, Some(&values.join(&b", "[..]))),
        }
    }

    /// A value as it may be shown. It is cut first: what strangers send is not all looked at.
    fn show(&self, line: &mut Line, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            let settings = &self.shared.settings;
            let length = value.len().min(settings.longest_value);
            line.text(name, &settings.redaction.target(&value[..length]), length < value.len());
        }
    }

    /// Nanoseconds since 1970.
    fn now(&self) -> u64 {
        let since = self.get_current_time().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    }
}

fn first<'a>(fields: &'a [(String, Bytes)], wanted: &str) -> Option<&'a [u8]> {
    fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice())
}
