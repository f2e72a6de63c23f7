//! A JSON array of events.

use super::error::Fault;
use super::{Batch, DecodeEvent, json};

/// Reads all events of the body into `batch`, each with `decode`.
pub(super) fn read<'a>(batch: &mut Batch<'a, '_>, decode: DecodeEvent) -> Result<(), Fault<'a>> {
    let json::Utf8 { text, fault } = json::utf8(batch.body);
    let trimmed = text.trim_ascii_start();
    if trimmed.starts_with('{') {
        let message = "expected an array of events, got an object: put `[` and `]` around it";
        return Err(Fault::malformed(message).at(trimmed));
    }
    if trimmed.is_empty() {
        return fault.map_or(Ok(()), Err);
    }
    batch.reserve();
    let read = json::elements(text, |element| batch.decode(element, decode));
    match (read, fault) {
        (read, None) => read,
        // Cut at the fault, the text is faulty at its end at the latest; what is faulty before
        // that comes first.
        (Err(earlier), Some(_)) if !earlier.is_at_end() => Err(earlier),
        (_, Some(fault)) => Err(fault),
    }
}
