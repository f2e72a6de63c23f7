//! Where a JSON value ends, at the speed of memory: one walk over its bytes, no tree, no copy.
//!
//! It takes exactly what `serde_json` takes (a property test holds them side by side), but says no
//! more than that something is wrong, or unusual. What is wrong, and where, is then `serde_json`'s to
//! say. Members of an object of 280 bytes take half the time here; `sonic-rs` was no faster than
//! `serde_json` without instructions that not every processor has.

use smallvec::SmallVec;
use wide::u8x16;

/// How deep a value may nest to be taken here; a deeper one is left to `serde_json`.
pub(super) const NESTING_MAX: usize = 100;

/// How many members or elements are taken here; of more the first at fault ends the walk elsewhere,
/// without a list of them all.
const MEMBERS_MAX: usize = 256;
const ELEMENTS_MAX: usize = 16_384;

/// The members of an object: their names as they stand there, with quotes, and their values. An event
/// has few.
pub(super) type Members<'a> = SmallVec<[(&'a str, &'a str); 8]>;

/// Adds the members of the object that `text` is to `out`; `None` if it is no object, or an unusual
/// one.
pub(super) fn members<'a>(text: &'a str, out: &mut Members<'a>) -> Option<()> {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    if *bytes.get(at)? != b'{' {
        return None;
    }
    at = skip_space(bytes, at + 1);
    if *bytes.get(at)? == b'}' {
        return at_end(bytes, at + 1).then_some(());
    }
    loop {
        let (name_end, start) = name(bytes, at)?;
        let end = value(bytes, start, 0)?;
        if out.len() == MEMBERS_MAX {
            return None;
        }
        out.push((text.get(at..name_end)?, text.get(start..end)?));
        at = skip_space(bytes, end);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b'}' => return at_end(bytes, at + 1).then_some(()),
            _ => return None,
        }
    }
}

/// The elements of the array that `text` is; `None` if it is no array, or an unusual one.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let mut at = skip_space(bytes, 0);
    let mut elements = Vec::new();
    if *bytes.get(at)? != b'[' {
        return None;
    }
    at = skip_space(bytes, at + 1);
    if *bytes.get(at)? == b']' {
        return at_end(bytes, at + 1).then_some(elements);
    }
    loop {
        let end = value(bytes, at, 0)?;
        if elements.len() == ELEMENTS_MAX {
            return None;
        }
        elements.push(text.get(at..end)?);
        at = skip_space(bytes, end);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b']' => return at_end(bytes, at + 1).then_some(elements),
            _ => return None,
        }
    }
}

/// Whether `text` is one value, with space around it or not.
pub(super) fn is_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    value(bytes, skip_space(bytes, 0), 0).is_some_and(|end| at_end(bytes, end))
}

fn at_end(bytes: &[u8], at: usize) -> bool {
    skip_space(bytes, at) == bytes.len()
}

/// Behind a value that begins at `at`.
fn value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at + 1),
        b'{' => object(bytes, at + 1, depth + 1),
        b'[' => array(bytes, at + 1, depth + 1),
        b't' => word(bytes, at, b"true"),
        b'f' => word(bytes, at, b"false"),
        b'n' => word(bytes, at, b"null"),
        _ => number(bytes, at),
    }
}

/// Behind an object whose brace is before `at`.
fn object(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    if depth > NESTING_MAX {
        return None;
    }
    let mut at = skip_space(bytes, at);
    if *bytes.get(at)? == b'}' {
        return Some(at + 1);
    }
    loop {
        let (_, start) = name(bytes, at)?;
        at = skip_space(bytes, value(bytes, start, depth)?);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Behind an array whose bracket is before `at`.
fn array(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    if depth > NESTING_MAX {
        return None;
    }
    let mut at = skip_space(bytes, at);
    if *bytes.get(at)? == b']' {
        return Some(at + 1);
    }
    loop {
        at = skip_space(bytes, value(bytes, at, depth)?);
        match bytes.get(at)? {
            b',' => at = skip_space(bytes, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Behind a name that begins at `at`, and where its value begins.
fn name(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let end = string(bytes, at + 1)?;
    let colon = skip_space(bytes, end);
    (*bytes.get(colon)? == b':').then(|| (end, skip_space(bytes, colon + 1)))
}

/// Behind a string whose first quote is before `at`.
fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at..).and_then(<[u8]>::first_chunk).map(first_special) {
            Some(None) => {
                at += LANES;
                continue;
            }
            Some(Some(within)) => at += within,
            // The last few.
            None => {}
        }
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at = escape(bytes, at + 1)?,
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// How many bytes of a string are looked at together.
const LANES: usize = 16;

/// Where the first byte is that ends or interrupts a string: a quote, a backslash, a control
/// character.
fn first_special(chunk: &[u8; LANES]) -> Option<usize> {
    let bytes = u8x16::new(*chunk);
    let is = |byte| bytes.simd_eq(u8x16::splat(byte));
    let is_control = bytes.simd_eq(bytes.min(u8x16::splat(0x1f)));
    let marks = (is(b'"') | is(b'\\') | is_control).to_bitmask();
    (marks != 0).then(|| marks.trailing_zeros() as usize)
}

/// Behind an escape whose backslash is before `at`.
fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => {
            let digits = bytes.get(at + 1..at + 5)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 5)
        }
        _ => None,
    }
}

/// Behind a number that begins at `at`.
fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    if *bytes.get(at)? == b'-' {
        at += 1;
    }
    match bytes.get(at)? {
        b'0' => at += 1,
        b'1'..=b'9' => at = skip_digits(bytes, at + 1),
        _ => return None,
    }
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    // A zero in front of a number.
    (!bytes.get(at).is_some_and(u8::is_ascii_digit)).then_some(at)
}

fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at)?.is_ascii_digit().then(|| skip_digits(bytes, at + 1))
}

fn skip_digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    // Nearly always there is none: one comparison tells.
    while let Some(byte) = bytes.get(at).filter(|byte| **byte <= b' ') {
        if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        at += 1;
    }
    at
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then_some(at + word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Whether `serde_json` takes it.
    fn is_json(text: &str) -> bool {
        serde_json::from_str::<&RawValue>(text).is_ok()
    }

    /// JSON of all kinds, as people and programs write it.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            any::<f64>().prop_map(|number| serde_json::json!(number).to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            prop_oneof!["-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?"],
            any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
            "\"([ a-zé\u{7f}]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,20}\"",
        ];
        let space = "[ \t\r\n]{0,2}";
        leaf.prop_recursive(5, 40, 6, move |inner| {
            let elements = proptest::collection::vec((space, inner.clone(), space), 0..6);
            let members = proptest::collection::vec((any::<String>(), space, inner, space), 0..6);
            prop_oneof![
                elements.prop_map(|elements| {
                    let all: Vec<String> =
                        elements.into_iter().map(|(a, json, b)| format!("{a}{json}{b}")).collect();
                    format!("[{}]", all.join(","))
                }),
                members.prop_map(|members| {
                    let member = |(name, a, json, b)| {
                        format!("{a}{}{b}:{a}{json}{b}", serde_json::json!(name))
                    };
                    let all: Vec<String> = members.into_iter().map(member).collect();
                    format!("{{{}}}", all.join(","))
                }),
            ]
        })
    }

    /// Text that is nearly JSON: with some bytes changed, left out or doubled.
    fn nearly_json() -> impl Strategy<Value = String> {
        let changes =
            proptest::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 0..4);
        (json(), changes).prop_map(|(json, changes)| {
            const TELLING: &[u8] = b"\"\\{}[]:,0-1.eE+tfnu \t\n\x00\x1f\x7f";
            let mut bytes = json.into_bytes();
            for (at, change, byte) in changes {
                if bytes.is_empty() {
                    break;
                }
                let at = at.index(bytes.len());
                let byte = TELLING[usize::from(byte) % TELLING.len()];
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    2 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at),
                }
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn it_takes_what_serde_json_takes(text in json()) {
            prop_assert!(is_json(&text) && is_value(&text), "{}", text);
        }

        #[test]
        fn it_refuses_what_serde_json_refuses(text in nearly_json()) {
            prop_assert_eq!(is_value(&text), is_json(&text), "{}", text);
        }

        #[test]
        fn any_text_is_judged_alike(text in any::<String>(), quoted in any::<bool>()) {
            let text = if quoted { format!("\"{text}\"") } else { text };
            prop_assert_eq!(is_value(&text), is_json(&text), "{:?}", text);
        }
    }

    #[test]
    fn every_byte_in_a_string_is_judged_alike_wherever_it_stands() {
        for byte in 0..=0x7f_u8 {
            for before in 0..20 {
                let text =
                    format!("\"{}{}{}\"", "x".repeat(before), char::from(byte), "y".repeat(20));
                assert_eq!(is_value(&text), is_json(&text), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_too_deep_is_left_to_others() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_value(&nested(NESTING_MAX)));
        assert!(!is_value(&nested(NESTING_MAX + 1)));
        assert!(!is_value(&"[".repeat(1_000_000)));
    }

    #[test]
    fn members_and_elements_are_slices_of_the_text() {
        let members_of = |text: &str| {
            let mut found = Members::new();
            let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            members(text, &mut found).map(|()| found.iter().map(owned).collect::<Vec<_>>())
        };
        let text = r#" { "a" : [1, 2] ,"b\n":"x" } "#;
        let expected = [("\"a\"", "[1, 2]"), ("\"b\\n\"", "\"x\"")];
        assert_eq!(
            members_of(text).unwrap(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(members_of("{}").unwrap(), []);
        assert_eq!(members_of("[]"), None);
        let many = |count: usize| {
            let members: Vec<String> = (0..count).map(|n| format!("\"{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(members_of(&many(MEMBERS_MAX)).unwrap().len(), MEMBERS_MAX);
        assert_eq!(members_of(&many(MEMBERS_MAX + 1)), None);
        let zeros = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert_eq!(elements(&zeros(ELEMENTS_MAX)).unwrap().len(), ELEMENTS_MAX);
        assert_eq!(elements(&zeros(ELEMENTS_MAX + 1)), None);
        assert_eq!(elements(r#" [ {"a":1} , 2 ] "#).unwrap(), [r#"{"a":1}"#, "2"]);
        assert_eq!(elements("[ ]").unwrap(), [""; 0]);
        assert_eq!(elements("[1,]"), None);
    }
}
