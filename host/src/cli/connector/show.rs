//! How connectors do, for people: first whether they work, and why not.

use serde_json::Value;

use crate::cli::output::{cell, items, table};
use crate::cli::plugin::settings::config_cell;
use crate::cli::plugin::{cut, versioned};

/// A service elsewhere may say much of why it refuses; `--json` has all of it.
const ERROR_CHARS_MAX: usize = 200;

/// The same where each connector has a line.
const ERROR_CHARS_MAX_IN_LIST: usize = 60;

/// One connector.
pub(super) fn human(connector: &Value) -> String {
    let about = [
        ("name", cell(connector, "name")),
        ("kind", cell(connector, "kind")),
        ("match", matched(connector)),
        ("to", target(connector)),
        ("plugin", plugin(connector)),
        ("state", standing(connector)),
        ("lag", cell(connector, "lag")),
    ];
    let lines = about.into_iter().chain(work(connector));
    let mut text: String = lines.map(|(name, text)| format!("{name:<7}  {text}\n")).collect();
    if let Some(warning) = connector.get("warning").and_then(Value::as_str) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let lost = lost(connector);
    if lost > 0 {
        let name = cell(connector, "name");
        text.push_str(&format!(
            "warning: {lost} records were trimmed before they were taken; `stream connector replay \
             {name} --from earliest` reads on with what is left\n"
        ));
    }
    text + &places(connector)
}

/// What was done, what waits, and what went wrong last.
fn work(connector: &Value) -> Vec<(&'static str, String)> {
    let [taken, dropped, faulted] =
        ["taken", "dropped", "faulted"].map(|field| cell(connector, field));
    let mut lines = vec![("taken", format!("{taken} ({dropped} kept back, {faulted} faulted)"))];
    if let Some(queue) = connector.get("queue").filter(|queue| queue.is_object()) {
        let [waiting, in_flight, dead] =
            ["waiting", "in_flight", "dead"].map(|field| cell(queue, field));
        lines.push(("queue", format!("{waiting} waiting, {in_flight} in flight, {dead} dead")));
    }
    if !is_embedded(connector) {
        lines.push(("sent", cell(connector, "sent")));
    }
    lines.push(("success", cell(connector, "last_success_at")));
    let error = match cell(connector, "last_error_at") {
        none if none == "-" => none,
        at => format!("{at} {}", cut(&cell(connector, "last_error"), ERROR_CHARS_MAX)),
    };
    lines.push(("error", error));
    if connector.get("paused_reason").is_some_and(Value::is_string) {
        lines.push(("held", "most requests fail: one now and then looks whether they pass".into()));
    }
    lines
}

/// Where it is behind, or cannot go on.
fn places(connector: &Value) -> String {
    let number = |object: &Value, field| object.get(field).and_then(Value::as_u64).unwrap_or(0);
    let lost = items(connector, "lost");
    let row = |place: &Value| {
        let lag = number(place, "log_end").saturating_sub(number(place, "next_offset"));
        let [topic, partition, next, end] =
            ["topic", "partition", "next_offset", "log_end"].map(|field| cell(place, field));
        let is_here = |lost: &&Value| {
            cell(lost, "topic") == topic && number(lost, "partition") == number(place, "partition")
        };
        let gone = lost.iter().find(is_here).map_or("-".to_owned(), |lost| cell(lost, "records"));
        (lag > 0 || gone != "-").then(|| [topic, partition, next, end, lag.to_string(), gone])
    };
    let rows: Vec<_> = items(connector, "cursor").iter().filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}", table(["TOPIC", "PARTITION", "NEXT", "END", "LAG", "LOST"], &rows))
}

/// All connectors.
pub(super) fn human_list(list: &Value) -> String {
    let row = |connector: &Value| {
        let [name, kind, topics, lag] =
            ["name", "kind", "match", "lag"].map(|field| cell(connector, field));
        let queue = connector.get("queue").unwrap_or(&Value::Null);
        let [waiting, dead] = ["waiting", "dead"].map(|field| cell(queue, field));
        let error = cut(&cell(connector, "last_error"), ERROR_CHARS_MAX_IN_LIST);
        [name, kind, topics, target(connector), standing(connector), lag, waiting, dead, error]
    };
    let rows: Vec<_> = items(list, "connectors").iter().map(row).collect();
    let titles = ["NAME", "KIND", "MATCH", "TO", "STATE", "LAG", "WAITING", "DEAD", "LAST ERROR"];
    table(titles, &rows)
}

/// What was given up.
pub(super) fn human_dead(list: &Value) -> String {
    let row = |letter: &Value| {
        let source = letter.get("source").unwrap_or(&Value::Null);
        let place = if source.is_object() {
            let [topic, partition, offset] =
                ["topic", "partition", "offset"].map(|field| cell(source, field));
            format!("{topic} {partition}:{offset}")
        } else {
            "-".to_owned()
        };
        let [id, time, attempts, reason] =
            ["id", "enqueued_at", "attempts", "reason"].map(|field| cell(letter, field));
        [id, time, place, attempts, reason]
    };
    let rows: Vec<_> = items(list, "dead_letters").iter().map(row).collect();
    if rows.is_empty() {
        return "nothing was given up\n".to_owned();
    }
    table(["ID", "TIME", "FROM", "ATTEMPTS", "REASON"], &rows)
}

pub(super) fn human_redriven(told: &Value) -> String {
    format!("{} tried again\n", cell(told, "redriven"))
}

/// One that is deleted later.
pub(super) fn human_draining(connector: &Value) -> String {
    let name = cell(connector, "name");
    let queue = connector.get("queue").filter(|_| !is_embedded(connector));
    let number = |field| queue.and_then(|queue| queue.get(field)?.as_u64()).unwrap_or(0);
    let left = number("waiting") + number("in_flight");
    format!(
        "`{name}` is deleted once it has taken what was published before and {left} requests are \
         sent\n"
    )
}

/// Whether it works, in a word or two.
fn standing(connector: &Value) -> String {
    let failures = connector.get("failures").and_then(Value::as_u64).unwrap_or(0);
    let mut words = vec![cell(connector, "state")];
    if words.first().is_some_and(|state| state != "paused") {
        if connector.get("paused_reason").is_some_and(Value::is_string) {
            words.push("held back".to_owned());
        } else if failures > 0 {
            words.push(format!("failing ({failures} in a row)"));
        }
    }
    let lost = lost(connector);
    if lost > 0 {
        words.push(format!("{lost} lost"));
    }
    words.join(", ")
}

fn lost(connector: &Value) -> u64 {
    let records = |lost: &Value| lost.get("records").and_then(Value::as_u64);
    items(connector, "lost").iter().filter_map(records).sum()
}

fn matched(connector: &Value) -> String {
    let topics = match connector.get("topics").and_then(Value::as_u64) {
        Some(1) => "1 topic".to_owned(),
        _ => format!("{} topics", cell(connector, "topics")),
    };
    format!("{} ({topics})", cell(connector, "match"))
}

fn is_embedded(connector: &Value) -> bool {
    connector.get("url").is_none_or(Value::is_null)
}

fn target(connector: &Value) -> String {
    if !is_embedded(connector) {
        return cell(connector, "url");
    }
    let settings = connector.get("settings").unwrap_or(&Value::Null);
    let named = |field| match cell(settings, field) {
        none if none == "-" => cell(connector, "name"),
        name => name,
    };
    match cell(connector, "kind").as_str() {
        "worker" => format!("queue {}", named("queue")),
        "ledger" => format!("ledger {}", named("ledger")),
        _ => "webhooks".to_owned(),
    }
}

fn plugin(connector: &Value) -> String {
    let Some(plugin) = connector.get("plugin").filter(|plugin| plugin.is_object()) else {
        return "-".to_owned();
    };
    let [role, on_fault] = ["role", "on_fault"].map(|field| cell(plugin, field));
    let config = match config_cell(plugin) {
        none if none == "-" => String::new(),
        config => format!(", config {config}"),
    };
    format!("{} ({role}, on fault {on_fault}{config})", versioned("plugin", plugin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn connector(more: Value) -> Value {
        let mut connector = json!({
            "name": "c", "kind": "worker", "match": "t", "plugin": null, "url": null,
            "settings": {}, "state": "running", "topics": 1, "lag": 0, "cursor": [],
            "queue": { "name": "c", "waiting": 2, "in_flight": 1, "dead": 0 }, "taken": 3,
            "dropped": 0, "faulted": 0, "sent": 0, "failures": 0, "last_error": null,
            "last_error_at": null, "last_success_at": "T", "paused_reason": null, "lost": [],
        });
        connector.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        connector
    }

    #[test]
    fn one_that_works_is_shown_in_a_few_lines() {
        let expected = "name     c\nkind     worker\nmatch    t (1 topic)\nto       queue c\n\
                        plugin   -\nstate    running\nlag      0\n\
                        taken    3 (0 kept back, 0 faulted)\n\
                        queue    2 waiting, 1 in flight, 0 dead\n\
                        success  T\nerror    -\n";
        assert_eq!(human(&connector(json!({}))), expected);
    }

    #[test]
    fn what_is_wrong_is_said_at_a_glance() {
        let lost = json!([{ "topic": "t", "partition": 1, "next_offset": 0, "earliest": 5, "records": 5 }]);
        let cursor = json!([
            { "topic": "t", "partition": 0, "next_offset": 9, "log_end": 9 },
            { "topic": "t", "partition": 1, "next_offset": 0, "log_end": 8 },
        ]);
        let ill = connector(json!({
            "url": "https://h", "kind": "hooks", "failures": 4, "last_error": "c answered\n503",
            "last_error_at": "T2", "lost": lost, "cursor": cursor, "lag": 8, "topics": 0,
            "warning": "no topic matches `t` now",
        }));
        let text = human(&ill);
        for part in [
            "running, failing (4 in a row), 5 lost\n",
            "T2 c answered 503\n",
            "warning: no topic matches `t` now\n",
            "warning: 5 records were trimmed",
            "t              1     0    8    8     5\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let held = connector(json!({ "paused_reason": "r", "failures": 9 }));
        assert_eq!(standing(&held), "running, held back");
        let paused = connector(json!({ "state": "paused", "failures": 9 }));
        assert_eq!(standing(&paused), "paused");
        let list = human_list(&json!({ "connectors": [ill] }));
        let row = list.lines().last().unwrap();
        assert!(row.starts_with("c     hooks  t      https://h  running, failing"), "{list}");
        assert!(row.ends_with("c answered 503"), "{list}");
    }

    #[test]
    fn dead_letters_say_where_they_are_from() {
        let source = json!({ "topic": "t", "partition": 1, "offset": 3 });
        let letter = json!({ "id": "job_1", "enqueued_at": "T", "attempts": 2, "reason": "no",
                             "source": source });
        let list = human_dead(&json!({ "dead_letters": [letter] }));
        assert!(list.ends_with("job_1  T     t 1:3         2  no\n"), "{list}");
        assert_eq!(human_dead(&json!({ "dead_letters": [] })), "nothing was given up\n");
    }
}
