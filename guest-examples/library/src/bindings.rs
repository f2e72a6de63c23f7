//! What wit-bindgen makes of the contract in `wit/`: the types once, and a module for each role.
//!
//! Only the macros of this crate may rely on it. A role's exports, and the section that declares
//! them, are made where its `export!` is used: a plugin exports the roles it names, and no other.
#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

wit_bindgen::generate!({
    inline: "package fourbyfour:guest; world types { import fourbyfour:events/types@0.1.0; }",
    path: "wit",
    generate_all,
    generate_unused_types: true,
    additional_derives: [Clone, Default, PartialEq, Eq],
});

pub use fourbyfour::events::types;

macro_rules! role {
    ($module:ident, $world:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                world: $world,
                path: "wit",
                with: { "fourbyfour:events/types@0.1.0": crate::bindings::types },
                additional_derives: [Clone, PartialEq, Eq],
                pub_export_macro: true,
            });

            pub use exports::fourbyfour::events::*;
        }
    };
}

role!(validator, "validator");
role!(partitioner, "partitioner");
role!(router, "router");
role!(transformer, "transformer");
