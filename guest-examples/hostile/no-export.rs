//! A component, but not a plugin: it has none of the roles.

wit_bindgen::generate!({
    inline: "
        package fourbyfour:hostile;

        world no-export {
            export greet: func() -> string;
        }
    ",
});

struct Plugin;

impl Guest for Plugin {
    fn greet() -> String {
        "hello".to_owned()
    }
}

export!(Plugin);
