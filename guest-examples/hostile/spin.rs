//! Never comes back.

use stream_plugin::{Context, Event, Verdict};

stream_plugin::validator!(validate);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    loop {
        std::hint::spin_loop();
    }
}
