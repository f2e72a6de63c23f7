//! The Stream server and its command line.
//!
//! An event travels one way: [`http`] turns a request into calls, [`decode`] its body into events,
//! [`publish`] stores them in one transaction, [`consume`] reads them back.
//!
//! | modules | what they own |
//! | --- | --- |
//! | [`name`], [`limit`], [`event`], [`topic`], [`timestamp`], [`ack`] | words and their rules |
//! | [`decode`], [`partition`], [`index`] | from bytes to events, to their partitions, to what they are found by; pure |
//! | [`publish`] | the one write path |
//! | [`consume`], [`live`] | the one read path; many topics at once, in the order of their commits |
//! | [`catalog`], [`project`], [`auth`], [`group`] | topics, projects, API keys, groups' commits: state in the store |
//! | [`queue`] | jobs: leased, tried, tried again, done or dead |
//! | [`ledger`] | events as entries of a Merkle tree that anybody can verify |
//! | [`egress`], [`secret`] | requests to addresses that users name; what is kept sealed |
//! | [`connector`] | from the log to Worker, Hooks and Ledger |
//! | [`retention`], [`stats`], [`budget`], [`drain`] | trimming, rates, bytes in flight, the end |
//! | [`node`] | all of these, wired to a store |
//! | [`config`] | flags, variables and file |
//! | [`http`], [`cli`] | the outside: they decide nothing |
//!
//! Only [`http`] knows status codes; only `stream_storage` knows what a key looks like on disk.

pub mod ack;
pub mod auth;
pub mod budget;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod connector;
pub mod consume;
pub mod decode;
pub mod drain;
pub mod egress;
pub mod event;
pub mod group;
mod heavy;
pub mod hooks;
pub mod http;
pub mod index;
mod json_text;
pub mod ledger;
pub mod limit;
pub mod live;
mod lock;
pub mod name;
pub mod node;
pub mod partition;
pub mod pattern;
pub mod pipeline;
pub mod plugin;
pub mod project;
pub mod publish;
pub mod queue;
pub mod registry;
pub mod retention;
pub mod secret;
pub mod slot;
pub mod stage;
mod state;
pub mod stats;
pub mod timestamp;
pub mod topic;
pub mod trial;

/// Requests of many threads allocate little at a time, and give back what another thread took: glibc
/// has them wait for each other.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
