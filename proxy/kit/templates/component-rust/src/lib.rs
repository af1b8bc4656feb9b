use std::cell::RefCell;

use exports::penstock::filter::http_filter::{BodyResult, Data, FilterInfo, Guest, Headers, HeadersResult, HeldResult, Response};
use penstock::filter::logging::{log, Level};
use penstock::filter::types::{Action, HeaderEdit, LocalResponse, Phases};

wit_bindgen::generate!({ path: "wit", world: "filter" });

struct Greeter;
export!(Greeter);

thread_local! {
    /// An instance has one configuration for life.
    static GREETING: RefCell<String> = RefCell::new("world".into());
}

fn goes_on(edits: Vec<HeaderEdit>) -> HeadersResult {
    HeadersResult { edits, action: Action::Continue }
}

fn unchanged() -> HeldResult {
    HeldResult { edits: vec![], replace: None, action: Action::Continue }
}

impl Guest for Greeter {
    /// Callbacks that are not wanted are never called.
    fn metadata() -> FilterInfo {
        let wants = Phases::REQUEST_HEADERS | Phases::RESPONSE_HEADERS;
        FilterInfo { name: "@NAME@".into(), version: "0.1.0".into(), wants }
    }

    /// An error refuses the configuration.
    fn configure(config: String) -> Result<(), String> {
        if config.len() > 64 {
            return Err("the greeting is longer than 64 bytes".into());
        }
        if !config.is_empty() {
            GREETING.set(config);
        }
        Ok(())
    }

    fn on_request_headers(_: u64, headers: Headers, _: bool) -> HeadersResult {
        if headers.iter().all(|(name, _)| name != "x-block") {
            return goes_on(vec![]);
        }
        log(Level::Info, "blocked a request");
        let body = Some(Data::Text("blocked\n".into()));
        let answer = LocalResponse { status: 403, headers: vec![], body, details: "blocked".into() };
        HeadersResult { edits: vec![], action: Action::Respond(answer) }
    }

    fn on_response_headers(_: u64, _: Headers, _: bool) -> HeadersResult {
        goes_on(vec![HeaderEdit::Set(("x-hello".into(), GREETING.with_borrow(String::clone)))])
    }

    fn on_request_body(_: u64, _: Data, _: bool) -> BodyResult {
        BodyResult { replace: None, action: Action::Continue }
    }

    fn on_response_body(_: u64, _: Data, _: bool) -> BodyResult {
        BodyResult { replace: None, action: Action::Continue }
    }

    fn on_request_trailers(_: u64, _: Headers, _: Option<Data>) -> HeldResult {
        unchanged()
    }

    fn on_response_trailers(_: u64, _: Headers, _: Option<Data>) -> HeldResult {
        unchanged()
    }

    fn on_http_response(_: u64, _: u32, _: Result<Response, String>) -> HeldResult {
        unchanged()
    }

    fn on_log(_: u64) {}
}
