//! Takes memory until there is none.

use std::hint::black_box;

use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1_u8; 1 << 20]);
        black_box(&eaten);
    }
}
