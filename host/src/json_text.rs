//! JSON written straight into bytes, where a tree of values would only be in the way.

/// Writes a JSON string.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing a string to a vector cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Writes the member `headers` of an object behind another one, if there are any.
pub(crate) fn put_headers(out: &mut Vec<u8>, headers: &[(&str, &str)]) {
    for (place, (name, value)) in headers.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b",\"headers\":{" } else { b"," });
        put_text(out, name);
        out.push(b':');
        put_text(out, value);
    }
    if !headers.is_empty() {
        out.push(b'}');
    }
}
