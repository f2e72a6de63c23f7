//! Accepts orders: JSON objects with a text `orderId` and a number `total`, 0 or more.
//!
//! Config: none, or `{"max_total": 1000}`. Any other is a fault.

use std::borrow::Cow;

use serde::Deserialize;
use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate, rules);

#[derive(Default, Deserialize)]
struct Rules {
    max_total: Option<f64>,
}

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(rename = "orderId", borrow)]
    _order_id: Cow<'a, str>,
    total: f64,
}

fn rules(context: &Context) -> Rules {
    match context.config.as_str() {
        "" => Rules::default(),
        config => serde_json::from_str(config).expect("the config is `{\"max_total\": number}`"),
    }
}

fn validate(rules: &Rules, event: &Event) -> Verdict {
    check(rules, event.value()).map_or_else(Verdict::Reject, |()| Verdict::Accept)
}

fn check(rules: &Rules, value: &[u8]) -> Result<(), String> {
    // To serde an array of the fields would be an order too.
    if !value.trim_ascii_start().starts_with(b"{") {
        return Err("expected a JSON object".to_owned());
    }
    let Order { total, .. } =
        serde_json::from_slice(value).map_err(|error| format!("expected an order: {error}"))?;
    match rules.max_total {
        _ if total < 0.0 => Err(format!("expected a `total` of 0 or more, got {total}")),
        Some(max) if total > max => Err(format!("expected a `total` up to {max}, got {total}")),
        _ => Ok(()),
    }
}

#[test]
fn an_order_has_an_id_and_a_total_in_bounds() {
    let rules = Rules { max_total: Some(10.0) };
    let rejected = |order: &str| check(&rules, order.as_bytes()).expect_err(order);
    assert_eq!(check(&rules, br#" {"orderId": "a", "total": 10, "note": null}"#), Ok(()));
    assert_eq!(rejected(r#"["a", 10]"#), "expected a JSON object");
    assert!(rejected(r#"{"total": 10}"#).contains("missing field `orderId`"));
    assert!(rejected(r#"{"orderId": 1, "total": 10}"#).contains("expected a string"));
    assert!(rejected(r#"{"orderId": "a", "total": -1}"#).contains("0 or more, got -1"));
    assert!(rejected(r#"{"orderId": "a", "total": 10.5}"#).contains("up to 10, got 10.5"));
}
