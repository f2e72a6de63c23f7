// Events that wait to be sent, by topic, and what becomes of them when their batch is answered.

import { ValidationError } from './errors.js';
import type { Published, Refusal } from './positions.js';

/** Where an event is stored that was sent in a batch. */
export interface Sent {
  topic: string;
  /**
   * Known if the answer tells it: if all of the batch went to one partition, and nothing was
   * dropped. `batch` has the offsets of the whole otherwise.
   */
  partition?: number;
  offset?: number;
  /** There if it went to `_dead-letter`, since a plugin or a route broke on it. */
  deadLettered?: Refusal;
  /** What the server said of the batch that it was in. */
  batch: Published;
}

/** An event that waits. */
export interface Entry {
  json: string;
  /** Of the JSON. */
  bytes: number;
  resolve(sent: Sent): void;
  reject(error: unknown): void;
}

/** How large a batch may be. */
export interface Limits {
  eventsMax: number;
  bytesMax: number;
}

interface Queue {
  entries: Entry[];
  bytes: number;
}

/** Events that wait, in the order in which they came to their topic; topics take turns. */
export class Outbox {
  readonly #limits: Limits;
  readonly #queues = new Map<string, Queue>();

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Puts an event behind the others of its topic. */
  add(topic: string, entry: Entry): void {
    const queue = this.#queues.get(topic) ?? { entries: [], bytes: 0 };
    queue.entries.push(entry);
    queue.bytes += entry.bytes;
    this.#queues.set(topic, queue);
  }

  /** Whether a topic has enough for a batch. */
  isFull(topic: string): boolean {
    const queue = this.#queues.get(topic);
    if (queue === undefined) return false;
    const { eventsMax, bytesMax } = this.#limits;
    return queue.entries.length >= eventsMax || queue.bytes >= bytesMax;
  }

  /** The next batch; `undefined` if nothing waits. */
  take(): { topic: string; entries: Entry[] } | undefined {
    const [next] = this.#queues;
    if (next === undefined) return undefined;
    const [topic, queue] = next;
    let bytes = 0;
    let count = 0;
    for (const entry of queue.entries) {
      const isFull = count >= this.#limits.eventsMax || bytes + entry.bytes > this.#limits.bytesMax;
      if (count > 0 && isFull) break;
      bytes += entry.bytes;
      count += 1;
    }
    const entries = queue.entries.splice(0, count);
    this.#queues.delete(topic);
    if (queue.entries.length > 0) {
      queue.bytes -= bytes;
      this.#queues.set(topic, queue);
    }
    return { topic, entries };
  }
}

/** Tells each of a batch's events what became of it. */
export function settle(entries: readonly Entry[], batch: Published): void {
  const rejected = new Map(batch.rejected?.map((refusal) => [refusal.index, refusal]));
  const dead = new Map(batch.deadLettered?.map((refusal) => [refusal.index, refusal]));
  const stored = entries.length - rejected.size - dead.size;
  const [range, ...more] = batch.partitions;
  const isExact =
    range !== undefined && more.length === 0 && range.lastOffset - range.firstOffset + 1 === stored;
  let rank = 0;
  entries.forEach((entry, index) => {
    const refusal = rejected.get(index);
    const deadLettered = dead.get(index);
    if (refusal !== undefined) return entry.reject(refused(refusal));
    const sent: Sent = { topic: batch.topic, batch };
    if (deadLettered !== undefined) return entry.resolve({ ...sent, deadLettered });
    if (!isExact) return entry.resolve(sent);
    entry.resolve({ ...sent, partition: range.partition, offset: range.firstOffset + rank });
    rank += 1;
  });
}

function refused(refusal: Refusal): ValidationError {
  const message = refusal.reason ?? 'the event is rejected';
  const details = { rejected: [refusal] };
  const code = 'events-rejected';
  return new ValidationError({ status: 400, code, message, retryable: false, details });
}
