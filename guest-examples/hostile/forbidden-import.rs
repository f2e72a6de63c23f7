//! Asks for the network.

use stream_plugin::{Context, Event, Verdict};

wit_bindgen::generate!({
    generate_all,
    inline: "
        package fourbyfour:hostile;

        world forbidden-import {
            import wasi:sockets/instance-network@0.2.0;
        }

        package wasi:sockets@0.2.0 {
            interface network {
                resource network;
            }

            interface instance-network {
                use network.{network};
                instance-network: func() -> network;
            }
        }
    ",
});

stream_plugin::validator!(validate);

fn validate(_context: &Context, _event: &Event) -> Verdict {
    drop(wasi::sockets::instance_network::instance_network());
    Verdict::Accept
}
