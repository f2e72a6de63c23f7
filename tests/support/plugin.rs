//! Components for tests: those that are committed, and made-up ones.
#![expect(clippy::expect_used, reason = "a test that cannot be set up fails")]

use serde_json::Value;

use crate::{Answer, Client};

/// A component that is committed.
///
/// # Panics
///
/// There is none of this name.
pub fn component(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/built");
    std::fs::read(format!("{folder}/{name}.wasm")).expect("a committed component")
}

/// The same component with some bytes more, which mean nothing: another digest.
pub fn padded(mut component: Vec<u8>, padding: &[u8]) -> Vec<u8> {
    let mut section = leb128(3);
    section.extend_from_slice(b"pad");
    section.extend_from_slice(padding);
    component.push(0);
    component.extend(leb128(section.len()));
    component.extend(section);
    component
}

/// A valid component of a few KB that keeps a compiler busy for minutes: loops in loops, with
/// thousands of locals that live across all of them.
pub fn compile_bomb() -> Vec<u8> {
    const LOOPS: usize = 300;
    const LOCALS: usize = 3_000;
    let mut body = leb128(1);
    body.extend(leb128(LOCALS));
    body.push(0x7e);
    for depth in 0..LOOPS {
        // `loop`, then a local that depends on others, at each level.
        body.extend([0x03, 0x40]);
        for step in 0..8 {
            body.push(0x20);
            body.extend(leb128((depth * 7 + step * 31) % LOCALS));
            body.push(0x20);
            body.extend(leb128((depth * 13 + step * 17) % LOCALS));
            body.push(0x7c);
            body.push(0x21);
            body.extend(leb128((depth * 11 + step * 5) % LOCALS));
        }
    }
    for depth in 0..LOOPS {
        // `br_if 0` on a local, then `end`.
        body.push(0x20);
        body.extend(leb128(depth * 9 % LOCALS));
        body.extend([0xa7, 0x0d, 0x00, 0x0b]);
    }
    body.push(0x0b);
    let mut function = leb128(body.len());
    function.extend(&body);
    let mut code = leb128(1);
    code.extend(function);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, bytes) in [(1, vec![1, 0x60, 0, 0]), (3, vec![1, 0]), (10, code)] {
        module.push(id);
        module.extend(leb128(bytes.len()));
        module.extend(bytes);
    }
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.push(1);
    component.extend(leb128(module.len()));
    component.extend(module);
    component
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

impl Client {
    /// Uploads a component as a plugin.
    ///
    /// # Panics
    ///
    /// No answer came.
    pub async fn upload(&self, path: &str, component: Vec<u8>) -> Answer {
        let request = self.request("PUT", path).header("content-type", "application/wasm");
        self.send(request.body(component)).await
    }

    /// Binds one plugin in a place such as `/bindings/validate/t`.
    ///
    /// # Panics
    ///
    /// It is refused.
    pub async fn bind(&self, path: &str, binding: Value) -> Value {
        let body = serde_json::json!({ "bindings": [binding] });
        self.call_with("PUT", path, body).await.ok()
    }
}
