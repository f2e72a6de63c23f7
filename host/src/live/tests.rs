//! Feeds on an embedded store.
