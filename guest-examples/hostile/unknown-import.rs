//! Asks for an interface that no server has.

use stream_plugin::{Context, Event, Verdict};

wit_bindgen::generate!({
    generate_all,
    inline: "
        package fourbyfour:hostile;

        world unknown-import {
            import acme:secrets/vault@1.0.0;
        }

        package acme:secrets@1.0.0 {
            interface vault {
                read: func(name: string) -> string;
            }
        }
    ",
});

stream_plugin::validator!(validate);

fn validate(context: &Context, _event: &Event) -> Verdict {
    Verdict::Reject(acme::secrets::vault::read(&context.config))
}
