//! Hooks: events posted to addresses that users name, signed, and tried again until they are taken.

pub mod sign;
