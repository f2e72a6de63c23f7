// Records that a consumer has read, and what can be done once they are processed.

import { ConflictError } from './errors.js';
import type { Transacted } from './positions.js';
import type { Nack, Nacked } from './member.js';
import { isSamePartition, type Lost, type Place } from './places.js';
import { type MemberOffsets, type PublishOptions, transact, type TopicEvents } from './publish.js';
import type { StreamRecord } from './records.js';
import type { CallOptions, Transport } from './transport.js';

/** Commits places under a member's name. */
export type Commit = (
  member: string,
  places: readonly Place[],
  options?: CallOptions,
) => Promise<void>;

/** Says under a member's name that a record could not be processed. */
export type SendNack = (member: string, nack: Nack, options?: CallOptions) => Promise<Nacked>;

/** When a record that could not be processed is read again, and why it could not. */
export interface NackOptions extends CallOptions {
  /** In milliseconds, at most an hour; by default a time that doubles from 1 s to 5 min. */
  delayMs?: number;
  /** For people, in `_dead-letter` and where the group is shown; cut to 1,365 characters. */
  reason?: string;
}

/** What a batch is made of. */
export interface BatchParts<V> {
  transport: Transport;
  commit: Commit;
  nack: SendNack;
  group: string;
  member: string;
  records: StreamRecord<V>[];
  next: Place[];
  lost: Lost[];
  /** Whether a later batch has been handed out. */
  isSuperseded: (batch: ConsumedBatch) => boolean;
}

/** What one call of `consume` has read. */
export class ConsumedBatch<V = unknown> {
  /** In order within each partition. */
  readonly records: StreamRecord<V>[];
  /**
   * Partitions whose records were trimmed before the group read them. None of their records come
   * until the group is reset there (`client.stream.groups.reset`).
   */
  readonly lost: readonly Lost[];
  /** What is committed once the records are processed; for `client.stream.transaction`. */
  readonly offsets: MemberOffsets;
  readonly #parts: BatchParts<V>;
  #isCommitted: boolean;

  /** @internal Batches come from `consume`. */
  constructor(parts: BatchParts<V>) {
    this.records = parts.records;
    this.lost = parts.lost;
    this.offsets = { group: parts.group, member: parts.member, partitions: parts.next };
    this.#parts = parts;
    this.#isCommitted = parts.next.length === 0;
  }

  /** Whether nothing of it is left to be committed. */
  get isCommitted(): boolean {
    return this.#isCommitted;
  }

  /**
   * Commits all of the batch, so that its records do not come again. A second time does nothing.
   *
   * Throws `FencedError` if a partition has moved to another member: nothing is committed then, and
   * the records come again where they are owned now.
   */
  async commit(options: CallOptions = {}): Promise<void> {
    if (this.#isCommitted) return;
    await this.#parts.commit(this.#parts.member, this.#parts.next, options);
    this.#isCommitted = true;
  }

  /**
   * Says that a record of the batch could not be processed. It is read again after a delay, with its
   * `attempt`, and what follows it in its partition with it: pass over what the batch no longer `holds`. The group's limit of failures, five by
   * default, sends it to `_dead-letter` instead. All before it in its partition is committed, and the
   * partition is no longer part of the batch: the rest is committed as usual. What a transaction was to
   * publish for the records before it is up to you then: they are committed without it.
   *
   * Throws `FencedError` if the partition has moved, and `ConflictError` `batch-committed`,
   * `batch-superseded` or `record-not-in-batch` if the record is dealt with or is none of the batch.
   */
  async nack(record: StreamRecord<V>, options: NackOptions = {}): Promise<Nacked> {
    if (this.#isCommitted) throw conflict('committed already');
    if (this.#parts.isSuperseded(this)) throw conflict('superseded by a later one');
    const { next, member } = this.#parts;
    const place = next.find((place) => isSamePartition(place, record));
    if (place === undefined || record.offset >= place.nextOffset) throw notInBatch(record);
    const { topic, partition, offset } = record;
    const { delayMs, reason, signal } = options;
    const { generation } = place;
    const nack = { topic, partition, generation, offset, delayMs, reason };
    // The server refuses a commit of it meanwhile or later, and with it that of the rest.
    next.splice(next.indexOf(place), 1);
    try {
      const nacked = await this.#parts.nack(member, nack, { signal });
      if (next.length === 0) this.#isCommitted = true;
      return nacked;
    } catch (error) {
      next.push(place);
      throw error;
    }
  }

  /** Whether the record is still to be processed here: not once one before it was nacked. */
  holds(record: StreamRecord<V>): boolean {
    return this.#parts.next.some((place) => isSamePartition(place, record));
  }

  /**
   * Publishes events and commits the batch, together or not at all: what is made of a record is
   * stored once, also if this is repeated by another process after a crash.
   *
   * Throws `FencedError` if a partition has moved, and `ConflictError` `batch-committed` or
   * `batch-superseded` if the batch is committed, or a later one was read; nothing is stored then.
   */
  async transaction(
    publish: readonly TopicEvents[],
    options: PublishOptions = {},
  ): Promise<Transacted> {
    // The server takes offsets again that it has already: it would store the events twice.
    if (this.#isCommitted && this.#parts.next.length > 0) throw conflict('committed already');
    if (this.#parts.isSuperseded(this)) throw conflict('superseded by a later one');
    const done = await transact(this.#parts.transport, { publish, offsets: this.offsets }, options);
    this.#isCommitted = true;
    return done;
  }
}

function notInBatch({ topic, partition, offset }: StreamRecord): ConflictError {
  const message = `the batch holds no record ${offset} of partition ${partition} of \`${topic}\``;
  return new ConflictError({ status: 409, code: 'record-not-in-batch', message, retryable: false });
}

function conflict(why: string): ConflictError {
  const code = `batch-${why.split(' ', 1)[0]}`;
  return new ConflictError({ status: 409, code, message: `the batch is ${why}`, retryable: false });
}
