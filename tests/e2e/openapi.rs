//! The served OpenAPI document against what the server does.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use stream_tests::{Answer, Client};

use super::start;

/// The document, and a client whose every answer is checked against it.
pub(super) struct Checked {
    document: Value,
    pub(super) client: Client,
}

/// Method, path as the document has it, and path as it is called.
pub(super) type Call<'a> = (&'a str, &'a str, &'a str);

impl Checked {
    pub(super) async fn new(client: Client) -> Self {
        let mut document = client.call("GET", "/openapi.json").await.ok();
        be_strict(&mut document);
        Self { document, client }
    }

    /// Calls, and checks status and body; and the request's body, if the server took it. A body that
    /// is a text is NDJSON.
    pub(super) async fn call(
        &self,
        (method, template, path): Call<'_>,
        body: Option<Value>,
        status: u16,
    ) -> Answer {
        let request = self.client.request(method, path);
        let (request, json) = match body {
            Some(Value::String(lines)) => {
                (request.header("content-type", "application/x-ndjson").body(lines), None)
            }
            Some(body) => (request.json(&body), Some(body)),
            None => (request, None),
        };
        let answer = self.send((method, template, path), request, status).await;
        if let (Some(body), 200..300) = (json, status) {
            let operation = self.operation(method, template);
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            self.validate(schema, &body, &format!("{method} {path} takes {body}"));
        }
        answer
    }

    /// As `call`, for a request that is refused with this code.
    pub(super) async fn refuse(
        &self,
        call: Call<'_>,
        body: Option<Value>,
        status: u16,
        code: &str,
    ) {
        let answer = self.call(call, body, status).await;
        assert_eq!(answer.code(), code, "{call:?}: {answer:?}");
    }

    /// Sends a request that is made already, and checks its answer.
    pub(super) async fn send(
        &self,
        (method, template, path): Call<'_>,
        request: RequestBuilder,
        status: u16,
    ) -> Answer {
        let answer = self.client.send(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.headers.contains_key("x-request-id"));
        self.check(method, template, &answer);
        answer
    }

    fn operation(&self, method: &str, template: &str) -> &Value {
        let operation = &self.document["paths"][template][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {template} is not described");
        operation
    }

    fn check(&self, method: &str, template: &str, answer: &Answer) {
        let responses = &self.operation(method, template)["responses"];
        let status = answer.status.to_string();
        let Some(response) = responses.get(&status) else {
            panic!("{method} {template} does not describe {status}");
        };
        let response = match response["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => response,
        };
        let what = format!("{method} {template} {answer:?}");
        let (code, description) = (answer.code(), response["description"].as_str().unwrap());
        let is_field = code.starts_with("invalid-") && description.contains("`invalid-…`");
        let is_described = is_field || description.contains(&format!("`{code}`"));
        assert!(code.is_empty() || is_described, "{code} is not described: {what}");
        let schema = &response["content"]["application/json"]["schema"];
        if !schema.is_null() {
            self.validate(schema, &answer.body, &what);
        }
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let schema = json!({"allOf": [schema], "components": self.document["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}");
    }
}

/// Makes every object refuse what is not described.
fn be_strict(part: &mut Value) {
    match part {
        Value::Object(fields) => {
            fields.values_mut().for_each(be_strict);
            let is_open = fields.get("additionalProperties").is_none_or(|more| *more == true);
            if fields.contains_key("properties") && !fields.contains_key("$ref") && is_open {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(be_strict),
        _ => {}
    }
}

const TOPICS: &str = "/projects/{project}/topics";
const TOPIC: &str = "/projects/{project}/topics/{topic}";

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let checked = Checked::new(server.client()).await;
    topics(&checked).await;
    publish(&checked).await;
    read(&checked).await;
    lookups(&checked).await;
    groups(&checked).await;
    keys(&checked).await;
    let path = "/projects/p/topics/t";
    checked.call(("DELETE", TOPIC, path), None, 204).await;
    checked.call(("GET", TOPIC, path), None, 404).await;
}

async fn topics(checked: &Checked) {
    let create = ("POST", TOPICS, "/projects/p/topics");
    checked.call(create, Some(json!({"name": "t", "partitions": 2})), 201).await;
    checked.call(create, Some(json!({"name": "t", "partitions": 2})), 200).await;
    checked.call(create, Some(json!({"name": "t", "partitions": 3})), 409).await;
    checked.call(create, Some(json!({"name": "no/name"})), 400).await;
    checked.call(("GET", TOPICS, "/projects/p/topics"), None, 200).await;
    checked.call(("GET", TOPICS, "/projects/none/topics"), None, 404).await;
    let topic = |method| (method, TOPIC, "/projects/p/topics/t");
    checked.call(topic("GET"), None, 200).await;
    checked.call(topic("PATCH"), Some(json!({"description": "d"})), 200).await;
    checked.call(topic("PATCH"), Some(json!({"partitions": 4})), 409).await;
    let partitions = "/projects/{project}/topics/{topic}/partitions";
    checked.call(("GET", partitions, "/projects/p/topics/t/partitions"), None, 200).await;
}

async fn publish(checked: &Checked) {
    let produce = "/projects/{project}/topics/{topic}/produce";
    let path = "/projects/p/topics/t/produce";
    let event = json!({"value": {"a": 1}, "key": "k", "headers": {"h": "v"}});
    checked.call(("POST", produce, path), Some(event), 200).await;
    checked.call(("POST", produce, path), Some(json!({"key": "k"})), 400).await;
    checked
        .call(("POST", produce, "/projects/p/topics/none/produce"), Some(json!({"value": 1})), 404)
        .await;
    let events = "/projects/{project}/topics/{topic}/events";
    let path = "/projects/p/topics/t/events";
    let lines = "{\"value\":1,\"partition\":0}\n{\"value\":2,\"id\":\"i\",\"time\":\"2026-01-01T00:00:00Z\"}\n";
    checked.call(("POST", events, path), Some(lines.into()), 200).await;
    checked.call(("POST", events, path), Some(json!([{"value": 1}])), 200).await;
    checked.call(("POST", events, path), Some("{\"value\":}\n".into()), 400).await;
    let stats = "/projects/{project}/topics/{topic}/stats";
    checked.call(("GET", stats, "/projects/p/topics/t/stats"), None, 200).await;
}

async fn read(checked: &Checked) {
    let records = "/projects/{project}/topics/{topic}/partitions/{partition}/records";
    let path = |query: &str| format!("/projects/p/topics/t/partitions/0/records?{query}");
    let bounded = ["offset=0&end_offset=1", "tail=1&until=2020-01-01T00:00:00Z"];
    let starts = ["offset=0", "timestamp=2020-01-01T00:00:00Z", "tail=1"];
    for query in starts.into_iter().chain(bounded) {
        checked.call(("GET", records, &path(query)), None, 200).await;
    }
    for query in ["", "offset=x", "offset=0&tail=1", "offset=0&limit=0", "offset=1&end_offset=0"] {
        checked.call(("GET", records, &path(query)), None, 400).await;
    }
    checked.call(("GET", records, &path("offset=99")), None, 416).await;
    checked.call(("DELETE", records, &path("before=1")), None, 200).await;
    checked.call(("GET", records, &path("offset=0")), None, 410).await;
}

async fn lookups(checked: &Checked) {
    const EVENT: &str = "/projects/{project}/topics/{topic}/events/{id}";
    const KEY: &str = "/projects/{project}/topics/{topic}/keys/{key}";
    let create = ("POST", TOPICS, "/projects/p/topics");
    let topic = json!({"name": "i", "index": ["id", "key"]});
    checked.call(create, Some(topic), 201).await;
    let unknown = json!({"name": "j", "index": ["time"]});
    checked.refuse(create, Some(unknown), 400, "invalid-index").await;
    let patch = ("PATCH", TOPIC, "/projects/p/topics/i");
    checked.refuse(patch, Some(json!({"index": []})), 400, "invalid-index").await;
    let produce =
        ("POST", "/projects/{project}/topics/{topic}/produce", "/projects/p/topics/i/produce");
    let event = json!({"value": "aGk=", "encoding": "base64", "content_type": "text/plain",
                       "key": "k", "id": "a"});
    for _ in 0..2 {
        checked.call(produce, Some(event.clone()), 200).await;
    }
    checked.call(("GET", EVENT, "/projects/p/topics/i/events/a"), None, 200).await;
    let none = ("GET", EVENT, "/projects/p/topics/i/events/b");
    checked.refuse(none, None, 404, "event-not-found").await;
    let plain = ("GET", EVENT, "/projects/p/topics/t/events/a");
    checked.refuse(plain, None, 409, "not-indexed").await;
    let path = "/projects/p/topics/i/keys/k?limit=1";
    let page = checked.call(("GET", KEY, path), None, 200).await;
    let path = format!("{path}&before={}", page.body["next"].as_str().unwrap());
    let last = checked.call(("GET", KEY, &path), None, 200).await;
    assert_eq!(last.body.get("next"), None);
    let bad = ("GET", KEY, "/projects/p/topics/i/keys/k?before=x");
    checked.refuse(bad, None, 400, "invalid-before").await;
    let plain = ("GET", KEY, "/projects/p/topics/t/keys/k");
    checked.refuse(plain, None, 409, "not-indexed").await;
}

async fn groups(checked: &Checked) {
    let consume = "/projects/{project}/topics/{topic}/consume";
    checked.call(("GET", consume, "/projects/p/topics/t/consume?group=g"), None, 200).await;
    checked.call(("GET", consume, "/projects/p/topics/t/consume"), None, 400).await;
    let offsets = "/projects/{project}/topics/{topic}/offsets";
    let commit = ("POST", offsets, "/projects/p/topics/t/offsets");
    checked.call(commit, Some(json!({"group": "g", "partition": 0, "offset": 1})), 204).await;
    checked.call(commit, Some(json!({"group": "g", "partition": 0, "offset": 99})), 400).await;
    checked.call(commit, Some(json!({"group": "g", "partition": 0, "offset": 0})), 409).await;
    checked.call(("GET", offsets, "/projects/p/topics/t/offsets?group=g"), None, 200).await;
}

async fn keys(checked: &Checked) {
    let keys = "/projects/{project}/keys";
    let made = checked
        .call(("POST", keys, "/projects/p/keys"), Some(json!({"scopes": ["publish"]})), 201)
        .await;
    checked.call(("GET", keys, "/projects/p/keys"), None, 200).await;
    checked.call(("POST", keys, "/projects/p/keys"), Some(json!({"scopes": ["no"]})), 400).await;
    let id = made.body["id"].as_str().unwrap();
    let key = "/projects/{project}/keys/{id}";
    let path = format!("/projects/p/keys/{id}");
    checked.call(("DELETE", key, &path), None, 204).await;
    checked.call(("DELETE", key, &path), None, 404).await;
}
