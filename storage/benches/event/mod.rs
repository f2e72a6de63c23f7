//! Events for benchmarks: JSON of 256 B, half of it incompressible.

/// `count` different events.
pub(crate) fn values(count: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count).map(|number| value(number, &mut state)).collect()
}

fn value(number: usize, state: &mut u64) -> Vec<u8> {
    const BYTES: usize = 256;
    let mut random = String::with_capacity(128);
    for _ in 0..8 {
        // Xorshift: the bits need to be neither good nor secret, only hard to compress.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        random.push_str(&format!("{state:016x}"));
    }
    let mut value = format!(r#"{{"number":{number},"kind":"order.placed","random":"{random}","#);
    value.push_str(r#""text":""#);
    let filler = BYTES.saturating_sub(value.len() + 2);
    value.extend(std::iter::repeat_n('a', filler));
    value.push_str(r#""}"#);
    value.into_bytes()
}
