//! Core modules and components: which of them some bytes are, and from the one to the other.

use std::borrow::Cow;

use wit_component::ComponentEncoder;

/// What bytes are, by their first eight: a magic number, a version, and the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Module,
    Component,
    Other,
}

impl Kind {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => Self::Module,
            [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Self::Component,
            _ => Self::Other,
        }
    }
}

/// The component that a module becomes; what is one stays as it is.
///
/// What it exports and imports is in sections that wit-bindgen left in the module; what the module
/// does not use is not imported.
pub(super) fn of_module(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if Kind::of(bytes) == Kind::Component {
        return Ok(Cow::Borrowed(bytes));
    }
    let component = ComponentEncoder::default()
        .debug_names(false)
        .module(bytes)
        .and_then(|encoder| encoder.validate(true).encode());
    component.map(Cow::Owned).map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_components_differ_in_their_layer() {
        let cases: [(&[u8], Kind); 5] = [
            (b"\0asm\x01\0\0\0", Kind::Module),
            (b"\0asm\x0d\0\x01\0", Kind::Component),
            (b"\0asm\x01\0", Kind::Other),
            (b"(module)", Kind::Other),
            (b"", Kind::Other),
        ];
        for (bytes, kind) in cases {
            assert_eq!(Kind::of(bytes), kind, "{bytes:?}");
        }
    }

    #[test]
    fn a_component_stays_and_a_module_becomes_one() {
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(of_module(component).unwrap(), &component[..]);
        let made = of_module(b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(Kind::of(&made), Kind::Component);
        assert!(of_module(b"no module").is_err());
    }
}
