//! Accepts JSON objects in which certain fields are there and not null.
//!
//! Config: the names of the fields, top level: `["tailnum", "dest"]`.

use serde_json::{Map, Value};
use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate, names);

fn names(context: &Context) -> Vec<String> {
    serde_json::from_str(&context.config).expect("the config is a list of names")
}

fn validate(names: &Vec<String>, event: &Event) -> Verdict {
    let fields: Map<String, Value> = match serde_json::from_slice(event.value()) {
        Ok(fields) => fields,
        Err(error) => return Verdict::Reject(format!("expected an object: {error}")),
    };
    let is_missing = |name: &&String| fields.get(*name).is_none_or(Value::is_null);
    match names.iter().find(is_missing) {
        Some(name) => Verdict::Reject(format!("field `{name}` is missing")),
        None => Verdict::Accept,
    }
}

#[test]
fn fields_have_to_be_there_and_not_null() {
    let names = ["a".to_owned(), "b".to_owned()].to_vec();
    let validate = |value: &str| validate(&names, &Event::from_value(value.as_bytes()));
    assert_eq!(validate(r#"{"a":0,"b":""}"#), Verdict::Accept);
    for (value, reason) in
        [(r#"{"a":1}"#, "field `b` is missing"), (r#"{"a":null,"b":1}"#, "field `a` is missing")]
    {
        assert_eq!(validate(value), Verdict::Reject(reason.to_owned()));
    }
    assert!(matches!(validate("[1]"), Verdict::Reject(_)));
}
