//! The Stream server.

pub mod ack;
pub mod auth;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod consume;
pub mod decode;
pub mod drain;
pub mod event;
pub mod group;
pub mod http;
pub mod limit;
mod lock;
pub mod name;
pub mod node;
pub mod partition;
pub mod project;
pub mod publish;
pub mod retention;
mod state;
pub mod stats;
pub mod timestamp;
pub mod topic;
