//! `stream hooks`: where events are posted to, sending them, and what became of them.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `endpoint` | endpoints made, shown, changed and deleted |
//! | `delivery` | deliveries shown, and made again |

mod delivery;
mod endpoint;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{CliError, Output, cell, fields, items, table};
use crate::name::{EndpointName, TopicName};

/// Post events to URLs: endpoints, deliveries and their figures
#[derive(Debug, Args)]
pub(super) struct HooksArgs {
    #[command(subcommand)]
    command: HooksCommand,
}

#[derive(Debug, Subcommand)]
enum HooksCommand {
    Endpoint(endpoint::EndpointArgs),
    Send(Send),
    Deliveries(delivery::Deliveries),
    Redeliver(delivery::Redeliver),
    /// Delete what waits for an endpoint; what is under way may still arrive
    Cancel {
        /// The endpoint
        #[arg(value_parser = EndpointName::parse)]
        endpoint: EndpointName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Count deliveries, by endpoint
    Stats,
}

/// Send an event to all endpoints that want its type
#[derive(Debug, Args)]
struct Send {
    /// The event's type, such as `order.placed`
    #[arg(value_name = "TYPE", value_parser = TopicName::parse)]
    event_type: TopicName,

    /// Its data, JSON
    #[arg(value_name = "JSON")]
    payload: String,

    /// Only to this endpoint, whatever types it wants; may be given several times
    #[arg(long = "to", value_name = "ENDPOINT", value_parser = EndpointName::parse)]
    endpoints: Vec<EndpointName>,
}

impl Send {
    fn body(&self) -> Result<Value, CliError> {
        let payload: Value = serde_json::from_str(&self.payload)
            .map_err(|error| CliError::Usage(format!("the data is not JSON: {error}")))?;
        let mut body = json!({ "event_type": self.event_type.as_str(), "payload": payload });
        if !self.endpoints.is_empty() {
            let names: Vec<&str> = self.endpoints.iter().map(EndpointName::as_str).collect();
            put(&mut body, "endpoints", names.into());
        }
        Ok(body)
    }
}

impl HooksArgs {
    pub(super) async fn run(self, client: &Client, output: Output) -> Result<(), CliError> {
        match self.command {
            HooksCommand::Endpoint(args) => args.run(client, output).await?,
            HooksCommand::Send(send) => {
                let request = client.request(Method::POST, &["webhooks"]).json(&send.body()?);
                output.show(&client.json(request).await?, human_sent)?;
            }
            HooksCommand::Deliveries(args) => args.run(client, output).await?,
            HooksCommand::Redeliver(args) => args.run(client, output).await?,
            HooksCommand::Cancel { endpoint, yes } => {
                let question = format!("delete all that waits for `{endpoint}`?");
                if !yes && !super::output::confirm(endpoint.as_str(), &question)? {
                    return Ok(());
                }
                let path = ["webhooks", "endpoints", endpoint.as_str(), "cancel"];
                let answer = client.json(client.request(Method::POST, &path)).await?;
                output.show(&answer, |told| format!("cancelled {}\n", cell(told, "cancelled")))?;
            }
            HooksCommand::Stats => {
                let request = client.request(Method::GET, &["webhooks", "stats"]);
                output.show(&client.json(request).await?, human_stats)?;
            }
        }
        Ok(())
    }
}

fn put(body: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = body {
        fields.insert(field.to_owned(), value);
    }
}

fn human_sent(sent: &Value) -> String {
    let about = fields([("event", cell(sent, "event_id"))]);
    let row = |one| ["delivery_id", "endpoint_name"].map(|field| cell(one, field));
    let rows: Vec<_> = items(sent, "deliveries").iter().map(row).collect();
    if rows.is_empty() {
        return format!("{about}no endpoint wants it\n");
    }
    format!("{about}\n{}", table(["DELIVERY", "ENDPOINT"], &rows))
}

fn human_stats(stats: &Value) -> String {
    const FIGURES: [&str; 5] = ["deliveries", "successful", "failed", "cancelled", "pending"];
    let figures = |name: &str, stats: &Value, names: [&str; 5]| {
        let [all, good, failed, cancelled, pending] = names.map(|field| cell(stats, field));
        let share = stats.get("success_rate").and_then(Value::as_f64).unwrap_or_default();
        let average = stats.get("avg_duration_ms").and_then(Value::as_f64).unwrap_or_default();
        let (share, average) = (format!("{:.1}", share * 100.0), format!("{average:.1}"));
        [name.to_owned(), all, good, failed, cancelled, pending, share, average]
    };
    let by_endpoint = stats.get("by_endpoint").and_then(Value::as_object).into_iter().flatten();
    let mut rows: Vec<_> = by_endpoint.map(|(name, stats)| figures(name, stats, FIGURES)).collect();
    let total = FIGURES.map(|name| match name {
        "deliveries" => "total_deliveries",
        "successful" => "successful_deliveries",
        "failed" => "failed_deliveries",
        "cancelled" => "cancelled_deliveries",
        _ => "pending_deliveries",
    });
    rows.push(figures("(all)", stats, total));
    let heads =
        ["ENDPOINT", "DELIVERIES", "TAKEN", "FAILED", "CANCELLED", "PENDING", "TAKEN %", "AVG MS"];
    table(heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn body(args: &[&str]) -> Option<Value> {
        let args = ["stream", "hooks", "send"].iter().chain(args);
        let Command::Hooks(args) = Cli::try_parse_from(args).ok()?.command else { panic!() };
        let HooksCommand::Send(send) = args.command else { panic!("{args:?}") };
        send.body().ok()
    }

    #[test]
    fn an_event_has_a_type_and_json() {
        let plain = json!({ "event_type": "order.placed", "payload": { "n": 1 } });
        let named = json!({ "event_type": "a", "payload": 1, "endpoints": ["e", "f"] });
        assert_eq!(body(&["order.placed", "{\"n\": 1}"]), Some(plain));
        assert_eq!(body(&["a", "1", "--to", "e", "--to", "f"]), Some(named));
        for args in [&["a"][..], &["a", "{"], &["a b", "1"], &["a", "1", "--to", "e/f"]] {
            assert_eq!(body(args), None, "{args:?}");
        }
    }

    #[test]
    fn the_figures_end_with_their_sum() {
        let one = json!({
            "deliveries": 4, "successful": 1, "failed": 1, "cancelled": 0, "pending": 2,
            "success_rate": 0.5, "avg_duration_ms": 2.25,
        });
        let stats = json!({
            "by_endpoint": { "e": one }, "total_deliveries": 4, "successful_deliveries": 1,
            "failed_deliveries": 1, "cancelled_deliveries": 0, "pending_deliveries": 2,
            "success_rate": 0.5, "avg_duration_ms": 2.25,
        });
        let text = human_stats(&stats);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["e", "4", "1", "1", "0", "2", "50.0", "2.2"]);
        assert_eq!(lines[2][1..], lines[1][1..]);
    }
}
