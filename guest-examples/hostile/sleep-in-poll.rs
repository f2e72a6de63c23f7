//! Sleeps for an hour: in `poll`, or with the config `block` in `pollable.block`.

use stream_plugin::{Context, Event, Verdict};

wit_bindgen::generate!({
    generate_all,
    inline: "
        package fourbyfour:hostile;

        world sleep-in-poll {
            import wasi:clocks/monotonic-clock@0.2.0;
            import wasi:io/poll@0.2.0;
        }

        package wasi:clocks@0.2.0 {
            interface monotonic-clock {
                use wasi:io/poll@0.2.0.{pollable};
                type duration = u64;
                subscribe-duration: func(when: duration) -> pollable;
            }
        }

        package wasi:io@0.2.0 {
            interface poll {
                resource pollable {
                    block: func();
                }
                poll: func(in: list<borrow<pollable>>) -> list<u32>;
            }
        }
    ",
});

stream_plugin::validator!(validate);

fn validate(context: &Context, _event: &Event) -> Verdict {
    let hour = wasi::clocks::monotonic_clock::subscribe_duration(3_600_000_000_000);
    if context.config == "block" {
        hour.block();
    } else {
        wasi::io::poll::poll(&[&hour]);
    }
    Verdict::Accept
}
