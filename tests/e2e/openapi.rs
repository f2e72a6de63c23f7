//! The served OpenAPI document against what the server does.

use serde_json::{Value, json};
use stream_tests::{Answer, Client};

use super::start;

/// The document, and a client whose every answer is checked against it.
struct Checked {
    document: Value,
    client: Client,
}

impl Checked {
    /// Calls, and checks status and body. `template` is the path as the document has it, `path` as
    /// it is called.
    async fn call(
        &self,
        (method, template, path): (&str, &str, &str),
        body: Option<Value>,
        status: u16,
    ) -> Answer {
        let request = self.client.request(method, path);
        let request = match body {
            Some(Value::String(lines)) => {
                request.header("content-type", "application/x-ndjson").body(lines)
            }
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = self.client.send(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(answer.headers.contains_key("x-request-id"));
        self.check(method, template, &answer);
        answer
    }

    fn check(&self, method: &str, template: &str, answer: &Answer) {
        let operation = &self.document["paths"][template][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {template} is not described");
        let responses = &operation["responses"];
        let status = answer.status.to_string();
        let response = responses.get(&status).or_else(|| responses.get("default"));
        let Some(response) = response else {
            panic!("{method} {template} does not describe {status}");
        };
        let response = match response["$ref"].as_str() {
            Some(reference) => self.document.pointer(reference.trim_start_matches('#')).unwrap(),
            None => response,
        };
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return;
        }
        let schema = json!({"allOf": [schema], "components": self.document["components"]});
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&answer.body).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{method} {template} {status}: {errors:#?}\n{answer:?}");
    }
}

const TOPICS: &str = "/projects/{project}/topics";
const TOPIC: &str = "/projects/{project}/topics/{topic}";

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let document = client.call("GET", "/openapi.json").await.ok();
    let checked = Checked { document, client };
    topics(&checked).await;
    publish(&checked).await;
    read(&checked).await;
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
    for query in ["offset=0", "timestamp=2020-01-01T00:00:00Z", "tail=1"] {
        checked.call(("GET", records, &path(query)), None, 200).await;
    }
    for query in ["", "offset=x", "offset=0&tail=1", "offset=0&limit=0"] {
        checked.call(("GET", records, &path(query)), None, 400).await;
    }
    checked.call(("GET", records, &path("offset=99")), None, 416).await;
    checked.call(("DELETE", records, &path("before=1")), None, 200).await;
    checked.call(("GET", records, &path("offset=0")), None, 410).await;
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
