//! A token check as a component in Rust: without the token 401, with it the request goes on with x-client, and the service's
//! JSON gets a field. Configured with {"token": "...", "client": "..."}.

use std::cell::RefCell;
use std::collections::HashSet;

use exports::penstock::filter::http_filter::{Data, FilterInfo, Guest, Headers, HeadersResult, HeldResult, BodyResult, Response};
use penstock::filter::types::{Action, HeaderEdit, LocalResponse, Phases};
use penstock::filter::{config, logging};
use serde_json::{Map, Value};

wit_bindgen::generate!({ path: "../../wit", world: "filter" });

struct TokenCheck;
export!(TokenCheck);

thread_local! {
    /// The header's value that is wanted, and the client's name: an instance has one configuration for life.
    static CONFIG: RefCell<(String, String)> = RefCell::default();
    /// Streams whose answer is JSON: instances serve many at once.
    static ANSWERING_JSON: RefCell<HashSet<u64>> = RefCell::default();
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn on(edits: Vec<HeaderEdit>) -> HeadersResult {
    HeadersResult { edits, action: Action::Continue }
}

fn as_it_is() -> BodyResult {
    BodyResult { replace: None, action: Action::Continue }
}

fn checked(text: &str) -> Option<String> {
    let mut found: Map<String, Value> = serde_json::from_str(text).ok()?;
    found.insert("checked".into(), Value::Bool(true));
    serde_json::to_string(&found).ok()
}

impl Guest for TokenCheck {
    fn metadata() -> FilterInfo {
        let wants = Phases::REQUEST_HEADERS | Phases::RESPONSE_HEADERS | Phases::RESPONSE_BODY;
        FilterInfo { name: "token-check".into(), version: "1.0.0".into(), wants }
    }

    fn configure(_: String) -> Result<(), String> {
        let token = config::get("token").filter(|token| !token.is_empty()).ok_or("the config has no token")?;
        let client = config::get("client").unwrap_or_else(|| "unknown".into());
        CONFIG.set((format!("Bearer {token}"), client));
        Ok(())
    }

    fn on_request_headers(_: u64, headers: Headers, _: bool) -> HeadersResult {
        let (wanted, client) = CONFIG.with_borrow(Clone::clone);
        if header(&headers, "authorization") != Some(&wanted) {
            logging::log(logging::Level::Info, &format!("refused {}", header(&headers, ":path").unwrap_or_default()));
            let answer = LocalResponse {
                status: 401,
                headers: vec![("www-authenticate".into(), "Bearer".into())],
                body: Some(Data::Text("no valid token".into())),
                details: "no_token".into(),
            };
            return HeadersResult { edits: vec![], action: Action::Respond(answer) };
        }
        on(vec![HeaderEdit::Remove("authorization".into()), HeaderEdit::Set(("x-client".into(), client))])
    }

    fn on_response_headers(stream: u64, headers: Headers, _: bool) -> HeadersResult {
        if !header(&headers, "content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return on(vec![]);
        }
        ANSWERING_JSON.with_borrow_mut(|streams| streams.insert(stream));
        on(vec![HeaderEdit::Remove("content-length".into())]) // the body's length will change
    }

    fn on_response_body(stream: u64, chunk: Data, end_of_stream: bool) -> BodyResult {
        if !ANSWERING_JSON.with_borrow(|streams| streams.contains(&stream)) {
            return as_it_is();
        }
        if !end_of_stream {
            return BodyResult { replace: None, action: Action::Pause };
        }
        ANSWERING_JSON.with_borrow_mut(|streams| streams.remove(&stream));
        match chunk {
            Data::Text(text) => BodyResult { replace: checked(&text).map(Data::Text), action: Action::Continue },
            Data::Binary(_) => as_it_is(),
        }
    }

    fn on_request_body(_: u64, _: Data, _: bool) -> BodyResult {
        as_it_is()
    }

    fn on_request_trailers(_: u64, _: Headers, _: Option<Data>) -> HeldResult {
        HeldResult { edits: vec![], replace: None, action: Action::Continue }
    }

    fn on_response_trailers(_: u64, _: Headers, _: Option<Data>) -> HeldResult {
        HeldResult { edits: vec![], replace: None, action: Action::Continue }
    }

    fn on_http_response(_: u64, _: u32, _: Result<Response, String>) -> HeldResult {
        HeldResult { edits: vec![], replace: None, action: Action::Continue }
    }

    fn on_log(_: u64) {}
}
