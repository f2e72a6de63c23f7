// Records that a consumer has read, and what can be done once they are processed.

import { ConflictError } from './errors.js';
import type { Transacted } from './positions.js';
import type { Lost, Place } from './places.js';
import { type MemberOffsets, type PublishOptions, transact, type TopicEvents } from './publish.js';
import type { StreamRecord } from './records.js';
import type { CallOptions, Transport } from './transport.js';

/** Commits places under a member's name. */
export type Commit = (
  member: string,
  places: readonly Place[],
  options?: CallOptions,
) => Promise<void>;

/** What a batch is made of. */
export interface BatchParts<V> {
  transport: Transport;
  commit: Commit;
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

function conflict(why: string): ConflictError {
  const code = `batch-${why.split(' ', 1)[0]}`;
  return new ConflictError({ status: 409, code, message: `the batch is ${why}`, retryable: false });
}
