//! What is published: made events of a size, or those of a file, as bodies that are made before the
//! clock runs.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cli::output::CliError;

/// Bodies that are made before the clock runs: as many as a cache does not hold, and no more.
const BODIES_BYTES: usize = 32 << 20;
const BODIES_MAX: usize = 1_024;

/// A JSON Schema of the ten fields that a made event has.
pub(super) const TEN_FIELDS: &str = r#"{
  "type": "object",
  "required": ["id", "customer", "amount", "currency", "items", "paid", "country", "channel", "note", "padding"],
  "additionalProperties": false,
  "properties": {
    "id": {"type": "integer", "minimum": 0},
    "customer": {"type": "string", "minLength": 1, "maxLength": 32},
    "amount": {"type": "number", "minimum": 0, "maximum": 1000000},
    "currency": {"enum": ["EUR", "USD", "GBP"]},
    "items": {"type": "integer", "minimum": 1, "maximum": 1000},
    "paid": {"type": "boolean"},
    "country": {"type": "string", "minLength": 2, "maxLength": 2},
    "channel": {"enum": ["web", "app", "shop"]},
    "note": {"type": "string", "maxLength": 100000000},
    "padding": {"type": "string", "maxLength": 100000000}
  }
}"#;

/// What events are like.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Bytes of each event's value.
    pub(super) size: usize,
    /// How many different keys there are; 0: events have none.
    pub(super) keys: u64,
    /// Events in a request.
    pub(super) batch: usize,
    pub(super) seed: u64,
}

/// A request's body.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// A line an event.
    pub(super) lines: Bytes,
    pub(super) events: u64,
    /// Bytes of the events' values; of whole lines, if they come from a file.
    pub(super) value_bytes: u64,
}

/// Bodies of made events.
pub(super) fn made(shape: &Shape) -> Vec<Body> {
    let mut random = StdRng::seed_from_u64(shape.seed);
    let line = shape.size + 40;
    let count = (BODIES_BYTES / (line * shape.batch.max(1)).max(1)).clamp(2, BODIES_MAX);
    (0..count).map(|number| body(&mut random, shape, number as u64)).collect()
}

fn body(random: &mut StdRng, shape: &Shape, number: u64) -> Body {
    let mut lines = String::with_capacity((shape.size + 40) * shape.batch);
    let mut value_bytes = 0;
    for place in 0..shape.batch {
        let value = value(random, shape.size, number * shape.batch as u64 + place as u64);
        value_bytes += value.len() as u64;
        lines.push('{');
        if shape.keys > 0 {
            let key = random.random_range(0..shape.keys);
            lines.push_str(&format!("\"key\":\"key-{key}\","));
        }
        lines.push_str(&format!("\"value\":{value}}}\n"));
    }
    Body { lines: lines.into(), events: shape.batch as u64, value_bytes }
}

/// An order of ten fields, half of it random, of `size` bytes if it fits; of fewer fields if not.
fn value(random: &mut StdRng, size: usize, id: u64) -> String {
    let customer = random.random_range(0..100_000);
    let amount = f64::from(random.random_range(100..1_000_000)) / 100.0;
    let items = random.random_range(1..100);
    let pick = |of: [&'static str; 3], at: usize| of.get(at % 3).copied().unwrap_or_default();
    let (currency, channel, country) = (
        pick(["EUR", "USD", "GBP"], customer),
        pick(["web", "app", "shop"], items),
        pick(["DE", "US", "GB"], customer),
    );
    let paid = items % 2 == 0;
    let head = format!(
        "{{\"id\":{id},\"customer\":\"customer-{customer}\",\"amount\":{amount},\
         \"currency\":\"{currency}\",\"items\":{items},\"paid\":{paid},\
         \"country\":\"{country}\",\"channel\":\"{channel}\",\"note\":\""
    );
    let tail = "\",\"padding\":\"";
    let Some(room) = size.checked_sub(head.len() + tail.len() + 2) else {
        let head = format!("{{\"id\":{id},\"note\":\"");
        let note = text(random, size.saturating_sub(head.len() + 2));
        return format!("{head}{note}\"}}");
    };
    let note = text(random, (size / 2).min(room));
    let padding = "=".repeat(room - note.len());
    format!("{head}{note}{tail}{padding}\"}}")
}

fn text(random: &mut StdRng, length: usize) -> String {
    Alphanumeric.sample_string(random, length)
}

/// Bodies of the events of a file, a JSON object a line, as `stream publish` takes them; as often
/// around as a body of `batch` needs.
///
/// # Errors
///
/// The file cannot be read, or holds no line.
pub(super) fn of_file(path: &Path, batch: usize) -> Result<Vec<Body>, CliError> {
    let text = fs::read_to_string(path).map_err(|error| CliError::unreadable(path, error))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(CliError::unreadable(path, "it holds no event"));
    }
    let mut around = lines.iter().cycle();
    let wanted = lines.len().div_ceil(batch).clamp(2, BODIES_MAX);
    let mut bodies = Vec::with_capacity(wanted);
    let mut bytes = 0;
    while bodies.len() < wanted && (bodies.len() < 2 || bytes < 8 * BODIES_BYTES) {
        let mut body = String::new();
        for line in around.by_ref().take(batch) {
            body.push_str(line);
            body.push('\n');
        }
        bytes += body.len();
        let value_bytes = (body.len() - batch) as u64;
        bodies.push(Body { lines: body.into(), events: batch as u64, value_bytes });
    }
    Ok(bodies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn values(shape: &Shape) -> Vec<(Option<String>, Value, usize)> {
        let bodies = made(shape);
        let text = std::str::from_utf8(&bodies[0].lines).unwrap().to_owned();
        let read = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let start = line.find("\"value\":").unwrap() + "\"value\":".len();
            let size = line.len() - 1 - start;
            (event["key"].as_str().map(str::to_owned), event["value"].clone(), size)
        };
        text.lines().map(read).collect()
    }

    #[test]
    fn made_events_have_the_size_that_was_asked_for_and_pass_their_schema() {
        let schema = jsonschema::validator_for(&serde_json::from_str(TEN_FIELDS).unwrap()).unwrap();
        for size in [40, 256, 1_000] {
            let shape = Shape { size, keys: 3, batch: 50, seed: 7 };
            let values = values(&shape);
            assert_eq!(values.len(), 50);
            for (key, value, got) in values {
                assert!(key.unwrap().starts_with("key-"));
                assert_eq!(got, size, "{value}");
                assert_eq!(schema.is_valid(&value), size > 40, "{value}");
            }
        }
    }

    #[test]
    fn without_keys_there_are_none_and_a_seed_repeats() {
        let shape = Shape { size: 100, keys: 0, batch: 2, seed: 1 };
        assert!(values(&shape).iter().all(|(key, ..)| key.is_none()));
        assert_eq!(made(&shape)[1].lines, made(&shape)[1].lines);
    }

    #[test]
    fn a_file_goes_around_until_bodies_are_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        fs::write(&path, "{\"value\":1}\n\n{\"value\":2}\n{\"value\":3}\n").unwrap();
        let bodies = of_file(&path, 2).unwrap();
        let text: Vec<&[u8]> = bodies.iter().map(|body| &*body.lines).collect();
        assert_eq!(text[0], b"{\"value\":1}\n{\"value\":2}\n");
        assert_eq!(text[1], b"{\"value\":3}\n{\"value\":1}\n");
        fs::write(&path, "\n").unwrap();
        assert!(of_file(&path, 2).unwrap_err().to_string().contains("no event"));
    }
}
