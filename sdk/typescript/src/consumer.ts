// A member and the batch that it has handed out: at most one at a time, committed when the next is
// asked for.

import { ConsumedBatch } from './batch.js';
import { ClosedError, FencedError, FourbyfourError } from './errors.js';
import { Member, type MemberOptions, type ReadOptions } from './member.js';
import { type Place, withoutMoved } from './places.js';
import { recordOf } from './records.js';
import { joinSignals } from './abort.js';
import type { CallOptions, Transport } from './transport.js';

/** How to read the next batch. */
export interface NextOptions extends ReadOptions {
  /**
   * Whether the batch is committed when the next one is asked for; default `true`. If not, it comes
   * again until it is committed.
   */
  autoCommit?: boolean;
}

/** Reads a group's share of some topics, batch by batch. */
export class Consumer {
  readonly #transport: Transport;
  readonly #group: string;
  readonly #member: Member;
  readonly #closing = new AbortController();
  /** What was handed out last. */
  #latest: ConsumedBatch | undefined;
  /** The same, until it is dealt with. */
  #batch: ConsumedBatch | undefined;
  #commitsLater = false;
  /** Calls take turns: two at once would be handed the same records. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(transport: Transport, options: MemberOptions) {
    this.#transport = transport;
    this.#group = options.group;
    this.#member = new Member(transport, options, () => this.#held());
  }

  /** Commits the batch before, if it is to be, and reads another. */
  next<V>(options: NextOptions): Promise<ConsumedBatch<V>> {
    return this.#inTurn(async () => {
      if (this.#closing.signal.aborted) throw new ClosedError('the consumer');
      const joined = joinSignals([options.signal, this.#closing.signal]);
      try {
        await this.#commitLater({ signal: joined.signal });
        const read = await this.#member.read({ ...options, signal: joined.signal });
        const batch = new ConsumedBatch<V>({
          transport: this.#transport,
          commit: (...commit) => this.#member.commit(...commit),
          nack: (...nack) => this.#member.nack(...nack),
          group: this.#group,
          member: read.member,
          records: read.records.map((record) => recordOf<V>(record)),
          next: read.next,
          lost: read.lost,
          isSuperseded: (batch) => this.#latest !== batch,
        });
        this.#batch = batch;
        this.#latest = batch;
        this.#commitsLater = options.autoCommit ?? true;
        return batch;
      } finally {
        joined.release();
      }
    });
  }

  /** Commits the batch that was handed out last, if there is one that is not committed. */
  async commit(options: CallOptions = {}): Promise<void> {
    await this.#batch?.commit(options);
  }

  /** Commits what is still owned of the places, and leaves out what has moved. */
  async commitOwned(batch: ConsumedBatch, places: readonly Place[], options: CallOptions = {}) {
    let left = [...places];
    while (left.length > 0) {
      try {
        return await this.#member.commit(batch.offsets.member, left, options);
      } catch (error) {
        if (!(error instanceof FencedError)) throw error;
        // All of its partitions have moved, or are free.
        if (error.code === 'unknown-member') return;
        const still = withoutMoved(left, error);
        if (still.length === left.length) throw error;
        left = still;
      }
    }
  }

  /**
   * Ends what is under way and leaves the group. The last batch is **not** committed: that nobody
   * asked for another does not say that it is processed.
   */
  async close(): Promise<void> {
    this.#closing.abort(new ClosedError('the consumer'));
    await this.#inTurn(() => this.#member.leave());
  }

  async #commitLater(options: CallOptions): Promise<void> {
    const batch = this.#batch;
    if (batch === undefined || !this.#commitsLater || batch.isCommitted) return;
    try {
      await this.commitOwned(batch, batch.offsets.partitions, options);
    } catch (error) {
      // What may be committed yet is tried again at the next call; anything else is told once.
      if (error instanceof FourbyfourError && !error.retryable) this.#batch = undefined;
      throw error;
    }
    this.#batch = undefined;
  }

  #held(): readonly Place[] {
    const batch = this.#batch;
    return batch === undefined || batch.isCommitted ? [] : batch.offsets.partitions;
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(run);
    this.#turn = result.catch(() => undefined);
    return result;
  }
}
