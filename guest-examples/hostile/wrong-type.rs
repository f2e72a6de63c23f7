//! Exports an interface with the name of `validate`, but with a function of another type.

wit_bindgen::generate!({
    inline: "
        package fourbyfour:events@0.1.0;

        interface validate {
            validate: func() -> u32;
        }

        world wrong-type {
            export validate;
        }
    ",
});

struct Plugin;

impl exports::fourbyfour::events::validate::Guest for Plugin {
    fn validate() -> u32 {
        0
    }
}

export!(Plugin);
