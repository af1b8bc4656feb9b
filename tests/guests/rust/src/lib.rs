//! The guest of ../../sdk_guests.md on the Rust SDK.
use proxy_wasm::hostcalls::{define_metric, increment_metric, record_metric};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { configuration: String::new(), ticks: 0, metrics: [0; 3] }));
}}

struct Root {
    configuration: String,
    ticks: u32,
    metrics: [u32; 3],
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.configuration = String::from_utf8(self.get_plugin_configuration().unwrap_or_default()).unwrap();
        log::info!("configured: {}", self.configuration);
        self.metrics = [
            define_metric(MetricType::Counter, "sdk_requests").unwrap(),
            define_metric(MetricType::Gauge, "sdk_open").unwrap(),
            define_metric(MetricType::Histogram, "sdk_sizes").unwrap(),
        ];
        self.set_tick_period(Duration::from_millis(50));
        true
    }

    fn on_tick(&mut self) {
        self.ticks += 1;
        if self.ticks == 3 {
            log::info!("third tick");
        }
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Guest { configuration: self.configuration.clone(), metrics: self.metrics, path: String::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Guest {
    configuration: String,
    metrics: [u32; 3],
    path: String,
}

impl Guest {
    fn count(&self) -> u32 {
        loop {
            let (value, cas) = self.get_shared_data("count");
            let next = value.as_ref().map_or(0, |data| u32::from_le_bytes(data[..4].try_into().unwrap())) + 1;
            let cas = if value.is_some() { cas } else { Some(u32::MAX) };
            match self.set_shared_data("count", Some(&next.to_le_bytes()), cas) {
                Ok(()) => return next,
                Err(Status::CasMismatch) => continue,
                Err(status) => panic!("{:?}", status),
            }
        }
    }
}

impl Context for Guest {
    fn on_http_call_response(&mut self, _token: u32, _headers: usize, _body_size: usize, _trailers: usize) {
        match self.get_http_call_response_header(":status").as_deref() {
            Some("200") => {
                let user = self.get_http_call_response_header("x-user").unwrap_or_default();
                self.add_http_request_header("x-user", &user);
                self.resume_http_request();
            }
            status => {
                let body = format!("no: {}", status.unwrap_or("reset"));
                self.send_http_response(403, vec![], Some(body.as_bytes()));
            }
        }
    }
}

impl HttpContext for Guest {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.path = self.get_http_request_header(":path").unwrap_or_default();
        increment_metric(self.metrics[0], 1).unwrap();
        increment_metric(self.metrics[1], 2).unwrap();
        record_metric(self.metrics[2], 7).unwrap();
        match self.path.as_str() {
            "/headers" => {
                self.add_http_request_header("x-count", &self.get_http_request_headers().len().to_string());
                self.set_http_request_header("x-replace", Some("new"));
                self.set_http_request_header("x-remove", None);
            }
            "/body" => self.set_http_request_header("content-length", None),
            "/counter" => self.add_http_request_header("x-shared", &self.count().to_string()),
            "/auth" => {
                let ask = self.get_http_request_header("x-ask").unwrap_or_default();
                let headers = vec![(":method", "GET"), (":path", ask.as_str()), (":authority", "auth")];
                self.dispatch_http_call("service", headers, None, vec![], Duration::from_secs(2)).unwrap();
                return Action::Pause;
            }
            _ => {}
        }
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if self.path != "/body" {
            return Action::Continue;
        }
        if !end_of_stream {
            return Action::Pause;
        }
        let body = self.get_http_request_body(0, size).unwrap_or_default();
        self.set_http_request_body(0, size, format!("[{}]", String::from_utf8_lossy(&body).to_uppercase()).as_bytes());
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.add_http_response_header("x-hello", &self.configuration);
        Action::Continue
    }
}
