//! The fields of a small JSON body, taken one by one, so that an error names its field.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::ApiError;

/// What is left of the body.
#[derive(Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body that is one JSON object.
    ///
    /// # Errors
    ///
    /// It is not JSON or not UTF-8, another kind of value, or names a field twice.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        Self::parse_raw(body, []).map(|(fields, [])| fields)
    }

    /// As [`parse`](Self::parse), but the fields of these names are left as they were sent.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub(crate) fn parse_raw<'b, const N: usize>(
        body: &'b [u8],
        raw: [&'static str; N],
    ) -> Result<(Self, [Option<&'b RawValue>; N]), ApiError> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let pairs = Pairs { raw }.deserialize(&mut deserializer);
        let pairs = pairs.and_then(|pairs| deserializer.end().map(|()| pairs));
        let (pairs, raw_values, bytes) = pairs.map_err(|error| {
            if error.is_data() {
                return ApiError::invalid("body", "expected a JSON object");
            }
            ApiError::MalformedJson { byte: byte_of(body, &error), message: error.to_string() }
        })?;
        if bytes > FIELDS_BYTES_MAX {
            return Err(ApiError::RequestTooLarge {
                limit: "control_bytes",
                max: FIELDS_BYTES_MAX,
            });
        }
        let mut fields = Map::new();
        for (name, value) in pairs {
            if fields.contains_key(&name) {
                let message = format!("field `{}` is given twice", cut(&name));
                return Err(ApiError::invalid("body", message));
            }
            // A number beyond all bounds, or a value that nests too deep.
            let malformed = |error: serde_json::Error| {
                let before = value.get().as_ptr().addr().saturating_sub(body.as_ptr().addr());
                let byte = before + byte_of(value.get().as_bytes(), &error);
                ApiError::MalformedJson { byte, message: error.to_string() }
            };
            fields.insert(name, serde_json::from_str(value.get()).map_err(malformed)?);
        }
        Ok((Self(fields), raw_values))
    }

    /// A text; `None` if it is absent or null.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(expected(name, "a string", &other)),
        }
    }

    /// A whole number that fits; `None` if it is absent or null.
    pub(crate) fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_u64()
                .and_then(|number| T::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| expected(name, "a whole number of 0 or more that fits", &value)),
        }
    }

    /// Yes or no; no if it is absent or null.
    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(expected(name, "`true` or `false`", &other)),
        }
    }

    /// A list of texts; `None` if it is absent or null.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, ApiError> {
        let Some(value) = self.0.remove(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let texts = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().map(ToOwned::to_owned)).collect()
        });
        texts.map(Some).ok_or_else(|| expected(name, "a list of strings", &value))
    }

    /// Any value; `None` if it is absent or null.
    pub(crate) fn any(&mut self, name: &'static str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// The objects of a list, each with its own fields; `None` if it is absent or null.
    pub(crate) fn objects(&mut self, name: &'static str) -> Result<Option<Vec<Self>>, ApiError> {
        let Some(value) = self.any(name) else { return Ok(None) };
        let objects: Option<Vec<Self>> = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_object().cloned().map(Self)).collect()
        });
        objects.map(Some).ok_or_else(|| expected(name, "a list of objects", &value))
    }

    /// An object with its own fields; `None` if it is absent or null.
    pub(crate) fn object(&mut self, name: &'static str) -> Result<Option<Self>, ApiError> {
        match self.any(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields))),
            Some(other) => Err(expected(name, "an object", &other)),
        }
    }

    /// Whether the field is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            Some((name, _)) => {
                Err(ApiError::invalid("body", format!("unknown field `{}`", cut(&name))))
            }
            None => Ok(()),
        }
    }
}

/// A field that has to be there.
pub(crate) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::invalid(field, "it is missing"))
}

/// The elements, 1 to `max`, of a list that was left as it was sent; what is beyond is not read.
pub(crate) fn elements<'b>(
    field: &'static str,
    list: &'b RawValue,
    max: usize,
) -> Result<Vec<&'b RawValue>, ApiError> {
    let mut out = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    let read = deserializer.deserialize_seq(Elements { out: &mut out, max });
    // To stop at the first that is one too many is an error of `read` too.
    if out.len() > max || (read.is_ok() && out.is_empty()) {
        return Err(ApiError::invalid(field, format!("expected 1 to {max} {field}")));
    }
    read.map_err(|_| ApiError::invalid(field, "expected a list of objects"))?;
    Ok(out)
}

fn expected(name: &'static str, what: &str, got: &Value) -> ApiError {
    let got = cut(&got.to_string());
    ApiError::invalid(name, format!("expected {what}, got `{got}`"))
}

/// What a message quotes of a client's text.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Bytes of fields that are read into values, which take many times as much.
const FIELDS_BYTES_MAX: usize = 1 << 20;

/// An object as it is written: a map would keep the last of two fields of the same name. Of fields that
/// are not left as they were sent only so many are kept as are within bounds; their bytes are counted.
struct Pairs<const N: usize> {
    raw: [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Pairs<N> {
    type Value = (Vec<(String, &'de RawValue)>, [Option<&'de RawValue>; N], usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Pairs<N> {
    type Value = (Vec<(String, &'de RawValue)>, [Option<&'de RawValue>; N], usize);

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut pairs, mut raw) = (Vec::new(), [None; N]);
        let mut bytes = 0_usize;
        while let Some(name) = map.next_key::<String>()? {
            let place = self.raw.iter().position(|raw| *raw == name);
            // A second one is left for the check that no field is given twice.
            match place.and_then(|place| raw.get_mut(place)).filter(|slot| slot.is_none()) {
                Some(slot) => *slot = Some(map.next_value()?),
                None => {
                    let value: &RawValue = map.next_value()?;
                    bytes = bytes.saturating_add(name.len() + value.get().len());
                    if bytes <= FIELDS_BYTES_MAX {
                        pairs.push((name, value));
                    }
                }
            }
        }
        Ok((pairs, raw, bytes))
    }
}

/// The elements of a list, and at most one more than `max`.
struct Elements<'o, 'de> {
    out: &'o mut Vec<&'de RawValue>,
    max: usize,
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while self.out.len() <= self.max
            && let Some(element) = list.next_element()?
        {
            self.out.push(element);
        }
        Ok(())
    }
}

/// Where an error lies in the body: serde counts lines and columns, both from 1.
pub(super) fn byte_of(body: &[u8], error: &serde_json::Error) -> usize {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lies_where_the_body_breaks() {
        let cases: [(&[u8], usize); 4] =
            [(b"", 0), (b"{\"a\":x}", 5), (b"{\n\"a\":\nx}", 7), (b"{\"a\":\"\xff\"}", 6)];
        for (body, expected) in cases {
            match Fields::parse(body) {
                Err(ApiError::MalformedJson { byte, .. }) => assert_eq!(byte, expected, "{body:?}"),
                other => panic!("{body:?}: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn many_small_values_are_refused_before_they_take_room() {
        let body = |bytes: usize| format!(r#"{{"a":[{}0]}}"#, "0,".repeat(bytes / 2));
        Fields::parse(body(FIELDS_BYTES_MAX - 16).as_bytes()).unwrap();
        assert!(Fields::parse(body(FIELDS_BYTES_MAX).as_bytes()).is_err());
    }

    #[test]
    fn a_list_has_one_element_to_so_many() {
        let cases = [
            ("[{},1]", Ok(vec!["{}", "1"])),
            ("[]", Err("expected 1 to 2 jobs")),
            ("[1,2,3]", Err("expected 1 to 2 jobs")),
            ("[1,2,3,4]", Err("expected 1 to 2 jobs")),
            ("{}", Err("expected a list of objects")),
        ];
        for (text, expected) in cases {
            let found = elements("jobs", serde_json::from_str(text).unwrap(), 2);
            match (found, expected) {
                (Ok(found), Ok(expected)) => {
                    let found: Vec<&str> = found.into_iter().map(RawValue::get).collect();
                    assert_eq!(found, expected, "{text}");
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{text}: {error}");
                }
                (found, _) => panic!("{text}: {:?}", found.err()),
            }
        }
    }

    #[test]
    fn a_field_that_nobody_took_is_refused() {
        let mut fields = Fields::parse(br#"{"a":1,"b":2}"#).unwrap();
        assert_eq!(fields.number::<u32>("a").unwrap(), Some(1));
        assert!(fields.finish().unwrap_err().to_string().contains("`b`"));
    }

    #[test]
    fn a_field_that_is_given_twice_is_refused_by_name() {
        let error = Fields::parse(br#"{"a":1,"b":2,"a":1}"#).err().unwrap();
        assert!(error.to_string().contains("`a`"), "{error}");
    }

    #[test]
    fn a_number_is_whole_and_fits() {
        for (text, is_valid) in [
            ("0", true),
            ("255", true),
            ("256", false),
            ("-1", false),
            ("1.5", false),
            ("\"1\"", false),
        ] {
            let mut fields = Fields::parse(format!("{{\"n\":{text}}}").as_bytes()).unwrap();
            assert_eq!(fields.number::<u8>("n").is_ok(), is_valid, "{text}");
        }
    }
}
