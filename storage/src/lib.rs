//! The durable log of Stream: partitioned logs of records, small versioned state, and the one
//! [`Transaction`] that changes them together.
//!
//! This crate knows nothing of HTTP, of WebAssembly, of consumer groups or of connectors. It is
//! reached through the [`Store`] trait; [`embedded`] is its engine on one machine.
//!
//! # What is durable when
//!
//! | event | what holds |
//! | --- | --- |
//! | [`Store::commit`] returns a receipt with `durable: true` | the whole transaction survives power loss |
//! | it returns a receipt with `durable: false` | asked for with [`Ack::Memory`]: the transaction survives the end of the process, **not** power loss, for about 10 ms |
//! | it returns [`CommitError::Unknown`] | the transaction is either stored whole or not at all; ask by its producer sequence |
//! | it returns any other error | nothing of it is stored |
//! | a record can be read | it is durable: readers see nothing at or beyond the durable end |
//!
//! Offsets in a partition are dense from 0 and never reused once durable. Timestamps and commit
//! numbers never go back within a partition.

mod batch;
mod clock;
pub mod embedded;
mod entry;
mod name;
mod record;
mod store;
mod transaction;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use batch::{RecordBatch, RecordTooLarge, Segment, SegmentRecords};
pub use clock::{Clock, ManualClock, SystemClock};
pub use name::{InvalidName, ProjectName};
pub use record::{DecodeError, Record};
pub use store::{
    Bounds, Health, Limits, Metrics, Position, ProducerState, ReadError, ReadRequest, ReadStart,
    Records, StateEntry, Store, StoreError, Trim, TrimError, Versioned, Watch,
};
pub use transaction::{
    Ack, Append, Appended, CommitError, CommitNumber, Condition, Expected, IndexEntry, Partition,
    ProducerStep, Receipt, StateWrite, Timestamp, TopicChange, TopicId, Transaction, Version,
};
