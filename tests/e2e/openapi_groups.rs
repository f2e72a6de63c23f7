//! Groups with members, live streams and transactions against the OpenAPI document.

use serde_json::{Value, json};

use super::openapi::Checked;
use super::start;

const MEMBERS: &str = "/projects/{project}/groups/{group}/members";
const MEMBER: &str = "/projects/{project}/groups/{group}/members/{member}";
const GROUP: &str = "/projects/{project}/groups/{group}";
const TRANSACTIONS: &str = "/projects/{project}/transactions";

async fn checked(data: &std::path::Path) -> (stream_tests::Server, Checked) {
    let server = start(data);
    let checked = Checked::new(server.client()).await;
    let topic = json!({"name": "t", "partitions": 2});
    let topics = ("POST", "/projects/{project}/topics", "/projects/p/topics");
    checked.call(topics, Some(topic), 201).await;
    let events = "/projects/{project}/topics/{topic}/events";
    let lines = "{\"value\":1,\"partition\":0}\n{\"value\":2,\"partition\":1}\n";
    checked.call(("POST", events, "/projects/p/topics/t/events"), Some(lines.into()), 200).await;
    (server, checked)
}

/// What a member commits for its first partition.
fn commit(assignment: &Value, next_offset: u64) -> Value {
    let held = &assignment[0];
    let (partition, generation) = (&held["partition"], &held["generation"]);
    json!([{"topic": "t", "partition": partition, "generation": generation,
            "next_offset": next_offset}])
}

#[tokio::test]
async fn members_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let join = ("POST", MEMBERS, "/projects/p/groups/g/members");
    let joined = checked.call(join, Some(json!({"subscriptions": ["t"]})), 201).await;
    checked.refuse(join, Some(json!({"subscriptions": []})), 400, "invalid-subscriptions").await;
    checked.refuse(join, Some(json!({"subscriptions": ["a*"]})), 400, "invalid-pattern").await;
    let session = json!({"subscriptions": ["t"], "session_timeout_ms": 1});
    checked.refuse(join, Some(session), 400, "invalid-session-timeout-ms").await;
    let member =
        format!("/projects/p/groups/g/members/{}", joined.body["member"].as_str().unwrap());

    let heartbeat = format!("{MEMBER}/heartbeat");
    checked.call(("POST", &heartbeat, &format!("{member}/heartbeat")), None, 200).await;
    let unknown = "/projects/p/groups/g/members/none/heartbeat";
    checked.refuse(("POST", &heartbeat, unknown), None, 409, "unknown-member").await;
    let records = format!("{MEMBER}/records");
    let path = format!("{member}/records?limit=1");
    checked.call(("GET", &records, &path), None, 200).await;
    checked.call(("GET", &records, &format!("{member}/records?limit=0")), None, 400).await;

    let offsets = format!("{MEMBER}/offsets");
    let path = format!("{member}/offsets");
    let call = ("POST", offsets.as_str(), path.as_str());
    let assignment = &joined.body["assignment"];
    let of = |partitions: Value| Some(json!({"partitions": partitions}));
    checked.call(call, of(commit(assignment, 1)), 204).await;
    checked.refuse(call, of(commit(assignment, 0)), 409, "offset-backwards").await;
    let mut stale = commit(assignment, 1);
    stale[0]["generation"] = json!(99);
    checked.refuse(call, of(stale), 409, "stale-generation").await;
    let memberless = json!({"group": "g", "partition": 0, "offset": 1});
    let plain =
        ("POST", "/projects/{project}/topics/{topic}/offsets", "/projects/p/topics/t/offsets");
    checked.refuse(plain, Some(memberless), 409, "group-has-members").await;

    let leave = ("DELETE", MEMBER, member.as_str());
    checked.call(leave, None, 204).await;
    checked.refuse(leave, None, 409, "unknown-member").await;
}

#[tokio::test]
async fn groups_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let group = |method| (method, GROUP, "/projects/p/groups/g");
    checked.refuse(group("GET"), None, 404, "group-not-found").await;
    let join = ("POST", MEMBERS, "/projects/p/groups/g/members");
    let joined = checked.call(join, Some(json!({"subscriptions": ["t"]})), 201).await;
    checked.call(("GET", "/projects/{project}/groups", "/projects/p/groups"), None, 200).await;
    checked.call(group("GET"), None, 200).await;
    let path = format!("{GROUP}/reset");
    let reset = ("POST", path.as_str(), "/projects/p/groups/g/reset");
    let to = |to: &str| json!({"topic": "t", "to": to});
    checked.refuse(reset, Some(to("latest")), 409, "group-has-members").await;
    checked.call(reset, Some(json!({"topic": "t", "to": "latest", "force": true})), 200).await;
    checked.call(reset, Some(json!({"topic": "t"})), 400).await;
    checked.call(reset, Some(json!({"topic": "none", "to": "latest"})), 404).await;
    checked.refuse(group("DELETE"), None, 409, "group-has-members").await;
    let member = joined.body["member"].as_str().unwrap();
    let path = format!("/projects/p/groups/g/members/{member}");
    checked.call(("DELETE", MEMBER, &path), None, 204).await;
    checked.call(group("DELETE"), None, 204).await;
    checked.call(group("GET"), None, 404).await;
}

#[tokio::test]
async fn nacks_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let put = ("PUT", GROUP, "/projects/p/groups/g");
    checked.call(put, Some(json!({})), 200).await;
    checked.refuse(put, Some(json!({"attempts_max": 0})), 400, "invalid-attempts-max").await;
    let set = checked.call(put, Some(json!({"attempts_max": 2})), 200).await;
    assert_eq!(set.body["attempts_max"], 2);
    let join = ("POST", MEMBERS, "/projects/p/groups/g/members");
    let joined = checked.call(join, Some(json!({"subscriptions": ["t"]})), 201).await;
    let member =
        format!("/projects/p/groups/g/members/{}", joined.body["member"].as_str().unwrap());
    let (records, nack) = (format!("{MEMBER}/records"), format!("{MEMBER}/nack"));
    let path = format!("{member}/records?wait_ms=20000");
    let read = ("GET", records.as_str(), path.as_str());
    assert_eq!(checked.call(read, None, 200).await.body["records"].as_array().unwrap().len(), 2);
    let path = format!("{member}/nack");
    let call = ("POST", nack.as_str(), path.as_str());
    let first = |more: Value| {
        let mut body = json!({"topic": "t", "partition": 0, "generation": 1, "offset": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    checked.refuse(call, first(json!({"offset": "1"})), 400, "invalid-offset").await;
    checked.refuse(call, first(json!({"delay_ms": 3_600_001})), 400, "invalid-delay-ms").await;
    checked.refuse(call, first(json!({"generation": 9})), 409, "stale-generation").await;
    checked.refuse(call, first(json!({"offset": 9})), 416, "offset-beyond-end").await;
    checked.refuse(call, first(json!({"topic": "none"})), 404, "topic-not-found").await;
    let begun = tokio::time::Instant::now();
    let held = checked.call(call, first(json!({"delay_ms": 300, "reason": "no"})), 200).await;
    assert_eq!((&held.body["attempts"], &held.body["dead_lettered"]), (&json!(1), &json!(false)));
    let group = checked.call(("GET", GROUP, "/projects/p/groups/g"), None, 200).await;
    assert_eq!(group.body["partitions"][0]["why"]["code"], "held", "{}", group.body);
    // The wait ends with the delay: nothing else wakes it.
    let offsets = format!("{MEMBER}/offsets");
    let other = json!([{"topic": "t", "partition": 1, "generation": 1, "next_offset": 1}]);
    let path = format!("{member}/offsets");
    checked.call(("POST", &offsets, &path), Some(json!({"partitions": other})), 204).await;
    let again = checked.call(read, None, 200).await;
    assert_eq!(again.body["records"][0]["attempt"], 2, "{}", again.body);
    let took = begun.elapsed().as_millis();
    assert!((300..10_000).contains(&took), "it took {took} ms");
    let dead = checked.call(call, first(json!({"generation": 2})), 200).await;
    assert_eq!((&dead.body["dead_lettered"], &dead.body["next_offset"]), (&json!(true), &json!(1)));
    checked.call(("GET", GROUP, "/projects/p/groups/g"), None, 200).await;
    let topics = "/projects/{project}/topics/{topic}/partitions/{partition}/records";
    let letters = "/projects/p/topics/_dead-letter/partitions/0/records?offset=0";
    let letters = checked.call(("GET", topics, letters), None, 200).await;
    assert_eq!(letters.body["records"][0]["value"]["event"]["value"], 1, "{}", letters.body);
    let none = "/projects/p/groups/g/members/none/nack";
    checked.refuse(("POST", &nack, none), first(json!({})), 409, "unknown-member").await;
}

#[tokio::test]
async fn transactions_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let join = ("POST", MEMBERS, "/projects/p/groups/g/members");
    let joined = checked.call(join, Some(json!({"subscriptions": ["t"]})), 201).await;
    let run = ("POST", TRANSACTIONS, "/projects/p/transactions");
    let transaction = |member: &Value, partitions: Value| {
        json!({
            "publish": [{"topic": "t", "events": [{"value": 3, "partition": 1}]}],
            "offsets": {"group": "g", "member": member, "partitions": partitions},
        })
    };
    let (member, assignment) = (&joined.body["member"], &joined.body["assignment"]);
    checked.call(run, Some(transaction(member, commit(assignment, 1))), 200).await;
    let mut stale = commit(assignment, 1);
    stale[0]["generation"] = json!(99);
    checked.refuse(run, Some(transaction(member, stale)), 409, "stale-generation").await;
    let unknown = transaction(&json!("none"), commit(assignment, 1));
    checked.refuse(run, Some(unknown), 409, "unknown-member").await;
    checked
        .call(run, Some(json!({"publish": [{"topic": "none", "events": [{"value": 1}]}]})), 404)
        .await;
    checked.call(run, Some(json!({"publish": 1})), 400).await;
    // As many events as a request may have, over all its topics, and one more; nothing is committed.
    let events = |count: usize| vec![json!({"value": 1}); count];
    let many = |count| {
        json!({
            "publish": [
                {"topic": "t", "events": events(5_000)},
                {"topic": "t2", "events": events(count)},
            ],
            "offsets": {"group": "g", "member": member, "partitions": commit(assignment, 1)},
        })
    };
    let topics = ("POST", "/projects/{project}/topics", "/projects/p/topics");
    checked.call(topics, Some(json!({"name": "t2"})), 201).await;
    checked.refuse(run, Some(many(5_001)), 413, "too-large").await;
    let mut most = many(5_000);
    most.as_object_mut().unwrap().remove("offsets");
    checked.call(run, Some(most), 200).await;
}

#[tokio::test]
async fn refused_subscriptions_are_as_the_document_says() {
    const SUBSCRIBE: &str = "/projects/{project}/subscribe";
    const RECORDS: &str = "/projects/{project}/records";
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    for (query, code) in [
        ("", "invalid-pattern"),
        ("?pattern=a*", "invalid-pattern"),
        ("?pattern=t&from=x", "invalid-from"),
    ] {
        let path = format!("/projects/p/subscribe{query}");
        checked.refuse(("GET", SUBSCRIBE, &path), None, 400, code).await;
    }
    let records = |query: &'static str| ("GET", RECORDS, query);
    checked.call(records("/projects/p/records?pattern=t&from=earliest"), None, 200).await;
    checked.call(records("/projects/p/records?pattern=none&from=earliest"), None, 200).await;
    let bad = records("/projects/p/records?pattern=t&after=1");
    checked.refuse(bad, None, 400, "invalid-after").await;
    let path = format!("{MEMBER}/subscribe");
    let member = "/projects/p/groups/g/members/none/subscribe";
    checked.refuse(("GET", &path, member), None, 409, "unknown-member").await;
}
