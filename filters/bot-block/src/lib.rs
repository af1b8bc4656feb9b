//! bot-block: refuses or tags clients by what they call themselves, and those that call themselves what they are not.

use log::{error, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MapType, MetricType};
use std::collections::HashMap;
use std::rc::Rc;

#[path = "../../rust/config.rs"]
mod config;
mod lists;
mod networks;
mod patterns;
mod settings;

use patterns::Agent;
use settings::{Settings, Verdict};

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
        let read = settings::read(&self.get_plugin_configuration().unwrap_or_default());
        match read.and_then(|mut settings| define_counters(&mut settings).map(|()| settings)) {
            Ok(settings) => {
                self.settings = Some(Rc::new(settings));
                true
            }
            Err(reason) => {
                error!("bot-block: configuration refused: {reason}");
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

/// One for each list and what is done about it, all at once: what clients send makes no metrics.
fn define_counters(settings: &mut Settings) -> config::Result<()> {
    let mut counters = HashMap::new();
    for (list, action) in settings.outcomes() {
        let name = format!("list=.={list};.;action=.={action};.;bot_requests");
        let id = hostcalls::define_metric(MetricType::Counter, &name).map_err(|status| format!("no counter {name}: {status:?}"))?;
        counters.insert((list.to_owned(), action), id);
    }
    settings.counters = counters;
    Ok(())
}

struct Stream {
    settings: Rc<Settings>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let settings = &*self.settings;
        // As bytes: no header need be valid UTF-8.
        let fields = match hostcalls::get_map_bytes(MapType::HttpRequestHeaders) {
            Ok(fields) => fields,
            Err(status) => {
                error!("bot-block: no headers: {status:?}");
                return self.refuse();
            }
        };
        let values = |wanted: &str| fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value).collect::<Vec<_>>();
        // A client can not tag itself. Servers take '_' in a name for '-'.
        for (name, _) in &fields {
            if name.len() == settings.header.len() && name.replace('_', "-") == settings.header.replace('_', "-") {
                self.set_http_request_header_bytes(name, None);
            }
        }
        let path = values(":path").first().map_or(&b""[..], |path| path);
        if settings.robots_txt && path.split(|&byte| byte == b'?').next() == Some(b"/robots.txt") {
            return Action::Continue;
        }
        let agents: Vec<Agent> = values("user-agent").into_iter().map(|value| Agent::new(value)).collect();
        let client = || {
            let peer = self.get_property(vec!["source", "address"]).unwrap_or_default();
            networks::client(&peer, &values("x-forwarded-for"), &settings.trusted_proxies)
        };
        match settings.judge(&agents, client) {
            Verdict::Pass => Action::Continue,
            Verdict::Tag(list) => {
                self.count(list, "tag");
                self.set_http_request_header(&settings.header, Some(list));
                Action::Continue
            }
            Verdict::Deny(list) => {
                self.count(list, "deny");
                self.refuse()
            }
        }
    }
}

impl Stream {
    fn count(&self, list: &str, action: &'static str) {
        let counted = self.settings.counters.get(&(list.to_owned(), action)).map(|&id| hostcalls::increment_metric(id, 1));
        if !matches!(counted, Some(Ok(()))) {
            warn!("bot-block: a request was not counted");
        }
    }

    fn refuse(&self) -> Action {
        let body = self.settings.body.as_bytes();
        self.send_http_response(self.settings.status, vec![("content-type", "text/plain")], Some(body));
        Action::Pause
    }
}
