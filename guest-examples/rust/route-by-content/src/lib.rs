//! Copies each event to the topic that stands for what one field of its JSON value says.
//!
//! Config: `{"field": "carrier", "topics": {"UA": "carrier.ua"}, "otherwise": "carrier.other"}`.
//! `otherwise` is for the events without the field too; without it, they are copied nowhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use stream_plugin::{Context, Event};

stream_plugin::router!(route, routes);

#[derive(Deserialize)]
struct Routes {
    field: String,
    topics: BTreeMap<String, String>,
    otherwise: Option<String>,
}

fn routes(context: &Context) -> Routes {
    serde_json::from_str(&context.config).expect("the config has a `field` and `topics`")
}

fn route(routes: &Routes, event: &Event) -> Vec<String> {
    let value: Value = serde_json::from_slice(event.value()).unwrap_or_default();
    let field = value.get(&routes.field).and_then(Value::as_str);
    let topic = field.and_then(|field| routes.topics.get(field)).or(routes.otherwise.as_ref());
    topic.cloned().into_iter().collect()
}

#[test]
fn a_field_chooses_the_topic() {
    let config = r#"{"field": "carrier", "topics": {"UA": "carrier.ua", "DL": "carrier.dl"}}"#;
    let context = Context { config: config.to_owned(), ..Context::default() };
    let mut routes = routes(&context);
    let ua = Event::from_value(br#"{"carrier": "UA", "flight": 1}"#);
    let aa = Event::from_value(br#"{"carrier": "AA"}"#);
    assert_eq!(route(&routes, &ua), ["carrier.ua"]);
    assert!(route(&routes, &aa).is_empty());
    routes.otherwise = Some("carrier.other".to_owned());
    assert_eq!(route(&routes, &ua), ["carrier.ua"]);
    assert_eq!(route(&routes, &aa), ["carrier.other"]);
    assert_eq!(route(&routes, &Event::from_value(b"no JSON")), ["carrier.other"]);
}
