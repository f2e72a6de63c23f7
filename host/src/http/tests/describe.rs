//! The OpenAPI document says what the server does.

use std::collections::BTreeSet;

use super::*;
use crate::http::ROUTES;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../openapi.json")).unwrap()
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method != "parameters" {
                let id = operation["operationId"].as_str().unwrap();
                described.insert((method.clone(), path.clone(), id.to_owned()));
            }
        }
    }
    let routes: BTreeSet<_> = ROUTES
        .concat()
        .iter()
        .map(|route| (route.method.into(), route.path.into(), route.operation.into()))
        .collect();
    assert_eq!(described, routes);
}

#[tokio::test]
async fn every_route_is_answered() {
    let server = Server::start().await;
    for route in ROUTES.concat() {
        let path = route.path.replace("{project}", "default").replace("{partition}", "0");
        let path = path.replace("{topic}", "t").replace("{id}", "i");
        let call = format!("{} {path}", route.method.to_uppercase());
        let answer = server.call(&call, Value::Null).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{call}");
        assert!(!answer.text.contains("\"not-found\""), "{call}: {}", answer.text);
    }
}

#[tokio::test]
async fn every_route_but_the_servers_own_needs_a_key() {
    let server = Server::start().await;
    let open = ["/healthz", "/readyz", "/openapi.json"];
    for route in ROUTES.concat() {
        let path = route.path.replace("{project}", "default").replace("{partition}", "0");
        let path = path.replace("{topic}", "t").replace("{id}", "i");
        let request = Request::builder().method(route.method.to_uppercase().as_str()).uri(&path);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        let is_open = answer.status != StatusCode::UNAUTHORIZED;
        assert_eq!(is_open, open.contains(&route.path), "{route:?}");
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let server = Server::start().await;
    assert_eq!(server.get("/openapi.json").await.json(), document());
}

/// Every `$ref` leads somewhere.
#[test]
fn references_resolve() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|value| walk(value, document));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}
