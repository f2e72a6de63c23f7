//! The built-in validator: JSON Schema, draft 2020-12.
//!
//! What a tenant writes here runs inside the server, so all of it is bounded: the schema's size, its
//! references (see `cost`), and its patterns, which a linear-time engine matches.

mod cost;

use async_trait::async_trait;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::{Context, Fault, Validate, Verdict};
use crate::event::Event;
use crate::heavy::heavy;

/// The largest schema, in bytes of JSON.
const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// Errors that a rejection tells of one event.
const ERRORS_MAX: usize = 3;

/// Bytes that a rejection tells of one error: it may quote the event.
const ERROR_BYTES_MAX: usize = 256;

/// A compiled pattern may take so much memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
}

/// A schema that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at `{path}` of the schema")]
pub struct SchemaError {
    /// JSON pointer to the part at fault.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl SchemaError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl Schema {
    /// Checks and compiles a schema.
    ///
    /// # Errors
    ///
    /// It is too large or too deep, is no schema of draft 2020-12, or refers to something outside of
    /// itself or in a circle.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        if schema.to_string().len() > SCHEMA_BYTES_MAX {
            let message = format!("expected at most {SCHEMA_BYTES_MAX} bytes");
            return Err(SchemaError::new("", message));
        }
        if let Some(draft) = schema.get("$schema").and_then(Value::as_str)
            && draft.trim_end_matches('#') != "https://json-schema.org/draft/2020-12/schema"
        {
            let message = format!("expected draft 2020-12, got `{draft}`");
            return Err(SchemaError::new("/$schema", message));
        }
        cost::check(schema)?;
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(patterns)
            .offline()
            .build(schema)
            .map_err(|error| {
                let message = cut(&error.to_string(), ERROR_BYTES_MAX);
                SchemaError::new(error.instance_path().to_string(), message)
            })?;
        Ok(Self { validator })
    }

    fn verdict(&self, event: &Event<'_>) -> Verdict {
        if !event.value_is_json {
            return Verdict::Reject("the topic's schema takes JSON values only".to_owned());
        }
        let value: Value = match serde_json::from_slice(&event.value) {
            Ok(value) => value,
            // A number that is no `f64`, such as `1e999`: well-formed, and beyond any schema.
            Err(error) => return Verdict::Reject(error.to_string()),
        };
        if self.validator.is_valid(&value) {
            return Verdict::Accept;
        }
        let errors: Vec<String> = self
            .validator
            .iter_errors(&value)
            .take(ERRORS_MAX)
            .map(|error| {
                let (path, message) = (error.instance_path().to_string(), error.to_string());
                let message = cut(&message, ERROR_BYTES_MAX);
                if path.is_empty() { message } else { format!("{message} at `{path}`") }
            })
            .collect();
        Verdict::Reject(errors.join("; "))
    }
}

#[async_trait]
impl Validate for Schema {
    async fn validate(&self, _: &Context, events: &[&Event<'_>]) -> Result<Vec<Verdict>, Fault> {
        let bytes = events.iter().map(|event| event.value.len()).sum();
        Ok(heavy(bytes, || events.iter().map(|event| self.verdict(event)).collect()))
    }
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", text.get(..text.floor_char_boundary(max)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TopicName;
    use serde_json::json;

    fn event(value: &str) -> Event<'static> {
        let value = value.as_bytes().to_vec().into();
        Event { value, value_is_json: true, ..Event::default() }
    }

    async fn verdicts(schema: Value, values: &[&str]) -> Vec<Verdict> {
        let schema = Schema::compile(&schema).unwrap();
        let context = Context { topic: TopicName::parse("t").unwrap(), partitions: 1 };
        let events: Vec<_> = values.iter().map(|value| event(value)).collect();
        let events: Vec<_> = events.iter().collect();
        schema.validate(&context, &events).await.unwrap()
    }

    fn refused(schema: &Value) -> SchemaError {
        Schema::compile(schema).unwrap_err()
    }

    #[tokio::test]
    async fn values_are_accepted_or_rejected_with_what_is_wrong_and_where() {
        let schema = json!({
            "type": "object",
            "required": ["id"],
            "properties": { "id": { "type": "string" }, "total": { "minimum": 0 } },
        });
        let values = [r#"{"id":"a","total":1}"#, r#"{"total":-1}"#, r#"{"id":7}"#, "1e999"];
        let verdicts = verdicts(schema, &values).await;
        assert_eq!(verdicts[0], Verdict::Accept);
        let reason = |at: usize| match &verdicts[at] {
            Verdict::Reject(reason) => reason.clone(),
            Verdict::Accept => panic!("{at} is accepted"),
        };
        assert!(reason(1).contains("\"id\" is a required property"), "{}", reason(1));
        assert!(reason(1).contains("at `/total`"), "{}", reason(1));
        assert!(reason(2).contains("at `/id`"), "{}", reason(2));
        assert!(reason(3).contains("number out of range"), "{}", reason(3));
    }

    #[tokio::test]
    async fn references_into_the_schema_are_followed_also_where_the_value_nests() {
        let schema = json!({
            "$ref": "#/$defs/tree",
            "$defs": { "tree": {
                "type": "object",
                "properties": { "left": { "$ref": "#/$defs/tree" } },
            }},
        });
        let verdicts = verdicts(schema, &[r#"{"left":{"left":{}}}"#, r#"{"left":{"left":1}}"#]);
        assert!(matches!(verdicts.await.as_slice(), [Verdict::Accept, Verdict::Reject(_)]));
    }

    #[test]
    fn what_is_no_schema_or_of_another_draft_is_refused() {
        for schema in [
            json!({ "type": "nothing" }),
            json!({ "pattern": "(" }),
            json!({ "pattern": "(?=look)ahead" }),
            json!({ "$schema": "http://json-schema.org/draft-07/schema#" }),
            json!(7),
        ] {
            refused(&schema);
        }
    }

    #[test]
    fn the_size_is_bounded() {
        let of_length = |length: usize| json!({ "description": "d".repeat(length) });
        let frame = of_length(0).to_string().len();
        assert!(Schema::compile(&of_length(SCHEMA_BYTES_MAX - frame)).is_ok());
        refused(&of_length(SCHEMA_BYTES_MAX - frame + 1));
    }

    #[test]
    fn a_pattern_that_takes_too_much_memory_is_refused() {
        refused(&json!({ "pattern": "(((a{1000}){1000}){1000})" }));
    }
}
