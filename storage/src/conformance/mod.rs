//! The suite that every engine has to pass, written against [`Store`] alone.
//!
//! An engine's tests say how it is opened, by an [`Engine`], and get the suite with one line:
//! `stream_storage::conformance_tests!(MyEngine::new())`. Each test has an engine of its own. The
//! suite waits for events and moves the engine's clock, it does not sleep.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![expect(clippy::cast_possible_truncation, reason = "a test's numbers are small")]

use std::sync::Arc;

use async_trait::async_trait;

use crate::{ManualClock, Store};

mod append_read;
mod closing;
mod conditions;
mod index;
mod limits;
mod memory;
mod order;
mod producers;
mod sequences;
mod state;
mod test_bed;
mod topics;
mod trim;
mod watch;

/// An engine under test, with one store that can be opened again and again.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Opens the store: empty the first time, later with all that it held when it was closed.
    async fn open(&self) -> Arc<dyn Store>;

    /// The clock that every opened store goes by.
    fn clock(&self) -> Arc<ManualClock>;
}

/// Lists every test of the suite. One that is missing here is dead code to the compiler.
macro_rules! suite {
    (($dollar:tt) $($subject:ident { $($test:ident)* })*) => {
        /// What [`conformance_tests`](crate::conformance_tests) calls.
        #[doc(hidden)]
        pub mod tests {
            $(pub mod $subject {
                use crate::conformance::{Engine, $subject as subject};
                $(pub async fn $test(engine: &dyn Engine) { subject::$test(engine).await; })*
            })*
        }

        /// Makes a test of every test of the suite. Takes an expression that makes a new
        /// [`Engine`](crate::conformance::Engine).
        #[macro_export]
        macro_rules! conformance_tests {
            ($dollar engine:expr) => {
                $(mod $subject {
                    use super::*;
                    $(#[tokio::test]
                    async fn $test() {
                        let engine = $dollar engine;
                        $dollar crate::conformance::tests::$subject::$test(&engine).await;
                    })*
                })*
            };
        }
    };
}

suite! {
    ($)
    append_read {
        offsets_are_dense_from_0_in_each_partition
        a_record_reads_back_with_all_its_fields
        one_transaction_has_one_commit_number_in_all_its_partitions
        a_refused_transaction_stores_nothing_in_any_partition
        a_read_starts_at_any_offset
        a_read_by_time_starts_at_the_first_record_of_that_time_or_later
        a_read_by_commit_starts_after_it
        a_read_starts_anywhere_among_small_publishes_made_at_once
        a_read_stops_at_its_record_limit
        a_read_stops_before_its_byte_limit_but_not_before_its_first_record
        a_read_at_the_end_is_empty_and_one_beyond_is_refused
        a_partition_that_was_never_written_is_empty_from_0
        bounds_tell_what_a_partition_holds
        partitions_and_topics_are_apart
    }
    order {
        commit_numbers_increase
        timestamps_never_go_back_although_the_clock_does
        transactions_of_one_project_are_committed_in_the_order_of_their_calls
        concurrent_publishes_are_all_there_in_the_order_of_each_caller
        a_reader_beside_a_writer_sees_a_prefix
        who_sees_a_commit_sees_all_before_it
    }
    conditions {
        a_condition_on_an_absent_key_holds_once
        a_condition_on_a_version_holds_until_the_next_write
        a_deleted_key_is_absent
        a_conflict_names_its_key_and_stores_nothing
        of_two_made_at_once_on_the_same_condition_one_commits
        a_condition_sees_the_write_of_an_earlier_call_made_at_once
        a_condition_is_on_the_own_projects_key
        versions_survive_reopening
    }
    state {
        the_last_write_of_a_key_is_read
        a_scan_takes_prefix_start_and_limit_in_byte_order
        many_keys_are_read_in_the_order_given
        projects_whose_names_start_alike_are_apart
        a_scan_never_sees_half_a_transaction
        values_of_any_bytes_are_kept
    }
    producers {
        a_repeat_gets_the_original_receipt
        a_repeat_gets_the_original_receipt_after_reopening
        the_last_64_receipts_are_kept_and_older_repeats_have_no_positions
        a_repeat_made_at_once_is_stored_once
        a_repeat_with_another_payload_is_refused
        a_repeat_ignores_what_does_not_hold_any_more
        a_lower_epoch_is_fenced
        a_higher_epoch_starts_at_0
        a_refused_transaction_consumes_no_sequence
        an_expired_producer_is_as_never_seen
        producers_are_apart_by_project_and_id
        a_transaction_without_appends_has_a_receipt
        a_receipt_lists_every_append_in_order
    }
    sequences {
        an_early_sequence_waits_for_the_missing_one
        early_sequences_commit_in_their_order
        an_early_sequence_is_refused_in_time
        at_most_16_wait
        waiting_does_not_hold_up_other_producers
    }
    trim {
        what_is_trimmed_cannot_be_read
        a_trim_may_end_inside_a_batch
        a_trim_never_goes_back
        a_trim_beyond_the_end_is_refused
        a_trim_of_everything_keeps_the_end
        a_trim_by_time_removes_older_transactions
        a_trim_by_bytes_keeps_at_least_as_many
        bounds_count_the_bytes_that_are_left
        a_cursor_below_a_trimmed_commit_is_told
        a_read_by_time_starts_at_the_trim_point_at_the_earliest
        a_trim_survives_reopening
        a_trim_of_one_partition_leaves_the_others
    }
    topics {
        an_append_to_an_unknown_topic_is_refused
        a_topic_is_created_once
        a_topic_is_created_with_its_first_records
        a_dropped_topic_takes_nothing_and_gives_nothing
        a_dropped_id_is_never_accepted_again
        a_drop_happens_with_its_state_or_not_at_all
        a_drop_survives_reopening
    }
    index {
        a_lookup_finds_all_records_of_a_key
        a_lookup_is_paged_by_position
        a_lookup_from_the_other_end_is_the_same_in_reverse
        keys_kinds_and_topics_are_apart
        trimmed_records_are_not_found
        records_of_a_dropped_topic_are_not_found
        index_entries_survive_reopening
    }
    watch {
        who_watches_a_topic_is_woken_by_appends_trims_and_its_drop
        who_watches_a_topic_is_not_woken_by_another
        who_watches_state_is_woken_by_puts_and_deletes_of_the_project
        who_subscribes_before_reading_misses_nothing
    }
    limits {
        as_many_writes_as_allowed_pass_and_one_more_is_refused
        as_many_bytes_as_allowed_pass_and_one_more_is_refused
        a_note_of_the_longest_length_passes_and_a_longer_one_is_refused
        keys_of_the_longest_length_pass_and_longer_ones_are_refused
        what_breaks_a_rule_is_invalid
    }
    memory {
        a_record_acknowledged_from_memory_is_not_durable_yet_and_readable_soon
        records_acknowledged_from_memory_keep_their_offsets
        records_acknowledged_from_memory_survive_closing
        what_is_more_than_records_is_durable_at_once
    }
    closing {
        a_closed_store_takes_nothing
        closing_twice_does_no_harm
        what_waits_for_a_sequence_is_told_of_the_closing
        everything_is_there_after_reopening
        offsets_and_commit_numbers_go_on_after_reopening
    }
}
