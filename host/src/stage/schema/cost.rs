//! What a schema may cost, told before it is used.
//!
//! A validator cannot be interrupted, and a small schema can make it work for years: by references
//! that lead in a circle, or that double at each level of the schema or of the value. So the work is
//! counted beforehand: how many subschemas may apply to the values along one path into the deepest
//! value that there can be.

use std::collections::{HashMap, HashSet};

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::SchemaError;

/// Levels of a value, and of a schema.
const DEPTH_MAX: usize = 100;

/// A schema without recursion needs a few; a recursive one a few for each level.
const COST_MAX: u64 = 100_000;

/// Subschemas that apply to the same value as the one that holds them.
const SAME_VALUE: [&str; 4] = ["if", "then", "else", "not"];
const SAME_VALUE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Subschemas that apply to any member of an object, or element of an array.
const ANY_CHILD: [&str; 6] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "contains",
    "unevaluatedItems",
];

/// Refuses references that lead out of the schema or in a circle, and what costs too much.
pub(super) fn check(root: &Value) -> Result<(), SchemaError> {
    check_part(root, &mut String::new(), 0)?;
    let mut costs = Costs { root, known: HashMap::new(), open: HashSet::new() };
    // From the bottom up, so that the recursion is as deep as the schema and not as the value.
    let mut cost = 0;
    for levels in 0..=DEPTH_MAX {
        cost = costs.of(root, "", levels)?;
    }
    if cost > COST_MAX {
        let message = "references multiply: validating a nested value would take too long";
        return Err(SchemaError::new("", message));
    }
    Ok(())
}

fn check_part(part: &Value, path: &mut String, depth: usize) -> Result<(), SchemaError> {
    if depth > DEPTH_MAX {
        let message = format!("expected at most {DEPTH_MAX} levels");
        return Err(SchemaError::new(path.as_str(), message));
    }
    for name in ["$ref", "$dynamicRef"] {
        if let Some(target) = part.get(name).and_then(Value::as_str)
            && !(target == "#" || target.starts_with("#/"))
        {
            let target: String = target.chars().take(64).collect();
            let message = format!(
                "expected a reference into this schema, such as `#/$defs/address`, got `{target}`"
            );
            return Err(SchemaError::new(format!("{path}/{name}"), message));
        }
    }
    let children: Vec<(String, &Value)> = match part {
        Value::Object(fields) => fields.iter().map(|(name, child)| (escape(name), child)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, child)| (at.to_string(), child)).collect()
        }
        _ => return Ok(()),
    };
    for (name, child) in children {
        let length = path.len();
        path.push('/');
        path.push_str(&name);
        check_part(child, path, depth + 1)?;
        path.truncate(length);
    }
    Ok(())
}

/// The costs that are known so far.
struct Costs<'s> {
    root: &'s Value,
    /// By pointer and levels of the value below.
    known: HashMap<(String, usize), u64>,
    /// What is being counted: to meet it again is a circle.
    open: HashSet<(String, usize)>,
}

impl<'s> Costs<'s> {
    /// Subschemas that apply along the worst path into a value with so many levels below it.
    fn of(&mut self, schema: &'s Value, path: &str, levels: usize) -> Result<u64, SchemaError> {
        let key = (path.to_owned(), levels);
        if let Some(cost) = self.known.get(&key) {
            return Ok(*cost);
        }
        if !self.open.insert(key.clone()) {
            return Err(SchemaError::new(path, "references lead in a circle"));
        }
        if self.open.len() > 2 * DEPTH_MAX {
            return Err(SchemaError::new(path, "references lead too far"));
        }
        let mut cost: u64 = 1;
        for (child, at) in self.same_value(schema, path) {
            cost = cost.saturating_add(self.of(child, &at, levels)?);
        }
        if let Some(levels) = levels.checked_sub(1) {
            cost = cost.saturating_add(self.of_children(schema, path, levels)?);
        }
        self.open.remove(&key);
        self.known.insert(key, cost);
        Ok(cost)
    }

    /// What applies to a child: all that applies to any, and the dearest of what applies to one.
    fn of_children(
        &mut self,
        schema: &'s Value,
        path: &str,
        levels: usize,
    ) -> Result<u64, SchemaError> {
        let mut cost: u64 = 0;
        for name in ANY_CHILD {
            if let Some(child) = schema.get(name) {
                cost = cost.saturating_add(self.of(child, &format!("{path}/{name}"), levels)?);
            }
        }
        for (child, at) in members(schema, "patternProperties", path) {
            cost = cost.saturating_add(self.of(child, &at, levels)?);
        }
        let mut dearest = 0;
        let listed = members(schema, "properties", path);
        for (child, at) in listed.into_iter().chain(elements(schema, "prefixItems", path)) {
            dearest = self.of(child, &at, levels)?.max(dearest);
        }
        Ok(cost.saturating_add(dearest))
    }

    fn same_value(&self, schema: &'s Value, path: &str) -> Vec<(&'s Value, String)> {
        let mut found = Vec::new();
        for name in ["$ref", "$dynamicRef"] {
            if let Some(target) = schema.get(name).and_then(Value::as_str) {
                let pointer = percent_decode_str(target.trim_start_matches('#'));
                let pointer = pointer.decode_utf8_lossy().into_owned();
                // One that leads nowhere is refused by the validator's compiler.
                found.extend(self.root.pointer(&pointer).map(|child| (child, pointer)));
            }
        }
        for name in SAME_VALUE {
            found.extend(schema.get(name).map(|child| (child, format!("{path}/{name}"))));
        }
        for name in SAME_VALUE_LISTS {
            found.extend(elements(schema, name, path));
        }
        found.extend(members(schema, "dependentSchemas", path));
        found
    }
}

fn members<'s>(schema: &'s Value, name: &str, path: &str) -> Vec<(&'s Value, String)> {
    let members = schema.get(name).and_then(Value::as_object).into_iter().flatten();
    members.map(|(key, child)| (child, format!("{path}/{name}/{}", escape(key)))).collect()
}

fn elements<'s>(schema: &'s Value, name: &str, path: &str) -> Vec<(&'s Value, String)> {
    let elements = schema.get(name).and_then(Value::as_array).into_iter().flatten();
    elements.enumerate().map(|(at, child)| (child, format!("{path}/{name}/{at}"))).collect()
}

/// A name as a part of a JSON pointer.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(schema: &Value) -> String {
        check(schema).unwrap_err().to_string()
    }

    #[test]
    fn references_in_a_circle_are_refused() {
        let circles = [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "$ref": "#" }] }),
            json!({ "$ref": "#/$defs/a", "$defs": {
                "a": { "anyOf": [true, { "$ref": "#/$defs/b" }] },
                "b": { "not": { "$ref": "#/$defs/a" } },
            }}),
            json!({ "properties": { "x": { "if": { "$ref": "#/properties/x" } } } }),
        ];
        for schema in circles {
            assert!(message(&schema).contains("circle"), "{schema}");
        }
    }

    #[test]
    fn references_that_multiply_are_refused() {
        let doubling: serde_json::Map<_, _> = (0..40)
            .map(|n| {
                let next = json!({ "$ref": format!("#/$defs/{}", n + 1) });
                (n.to_string(), json!({ "allOf": [next, next] }))
            })
            .chain([("40".to_owned(), json!(true))])
            .collect();
        assert!(message(&json!({ "$ref": "#/$defs/0", "$defs": doubling })).contains("multiply"));
        let again = json!({ "$ref": "#" });
        let by_level = json!({ "properties": { "x": { "allOf": [again, again] } } });
        assert!(message(&by_level).contains("multiply"));
        let overlapping = json!({ "properties": { "x": again }, "additionalProperties": again });
        assert!(message(&overlapping).contains("multiply"));
    }

    #[test]
    fn trees_and_lists_are_fine() {
        let node = json!({ "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/node" }] });
        let tree = json!({ "$ref": "#/$defs/node", "$defs": { "node": {
            "properties": { "left": node, "right": node, "list": { "items": node } },
        }}});
        assert_eq!(check(&tree), Ok(()));
    }

    #[test]
    fn references_that_lead_out_are_refused_with_their_place() {
        for target in ["http://example.com/s.json", "other.json#/a", "file:///etc/passwd", "#name"]
        {
            let schema = json!({ "properties": { "a": { "$ref": target } } });
            assert_eq!(check(&schema).unwrap_err().path, "/properties/a/$ref", "{target}");
        }
    }

    #[test]
    fn a_schema_has_at_most_100_levels() {
        let nested = |levels| (0..levels).fold(json!({}), |inner, _| json!({ "not": inner }));
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert!(message(&nested(DEPTH_MAX + 1)).contains("levels"));
    }
}
