// `client.stream.subscribe`: records as a loop, live or as a member of a group.

import type { ConsumedBatch } from './batch.js';
import type { Consumer } from './consumer.js';
import type { Consumers } from './consumers.js';
import { ClosedError, OffsetError } from './errors.js';
import { live, type LiveOptions } from './live.js';
import { type Lost, placesAfter } from './places.js';
import { Reconnects } from './reconnect.js';
import type { StreamRecord } from './records.js';
import type { ConsumeOptions } from './topics.js';
import type { Transport } from './transport.js';

/** How to subscribe as a member of a group. */
export interface GroupSubscription extends Omit<ConsumeOptions, 'autoCommit'> {
  /** A topic, or a pattern: `*` is one token, `**` any number. Topics made later are in it. */
  pattern: string;
  /** How often in a row to try again once it has worked; without end by default. */
  maxReconnects?: number;
  /**
   * Told of partitions whose records were trimmed before the group read them; the loop then goes on
   * with the others. Without it, the loop throws an `OffsetError` `records-lost`.
   */
  onLost?: (lost: readonly Lost[]) => void;
}

/** How to subscribe without a group. */
export interface LiveSubscription extends LiveOptions {
  group?: undefined;
}

/** How long a member waits for records at once, in milliseconds. */
const WAIT_MS = 30_000;

/** Records of a group, committed batch by batch when the loop asks for the first behind it. */
export async function* subscribeAsGroup<V>(
  transport: Transport,
  consumers: Consumers,
  options: GroupSubscription,
): AsyncGenerator<StreamRecord<V>, void, undefined> {
  const { group, sessionTimeoutMs, instanceId, idleTimeoutMs, pattern } = options;
  const member = { group, sessionTimeoutMs, instanceId, idleTimeoutMs };
  const consumer = consumers.open({ ...member, subscriptions: [pattern] });
  const progress: Progress<V> = { batch: undefined, done: 0 };
  let hasFailed = false;
  try {
    for (;;) {
      progress.batch = await nextBatch<V>(transport, consumer, options);
      progress.done = 0;
      for (const record of progress.batch.records) {
        yield record;
        progress.done += 1;
        options.signal?.throwIfAborted();
      }
    }
  } catch (error) {
    // The client was closed.
    if (error instanceof ClosedError) return;
    hasFailed = true;
    throw error;
  } finally {
    const finished = finish(consumers, consumer, progress);
    // Of two failures the first tells more.
    await (hasFailed ? finished.catch(() => undefined) : finished);
  }
}

/** Records of all topics that match, for a reader without a group. */
export function subscribeLive<V>(
  transport: Transport,
  options: LiveSubscription,
  closing: AbortSignal,
): AsyncGenerator<StreamRecord<V>, void, undefined> {
  return live<V>(transport, options, closing);
}

interface Progress<V> {
  batch: ConsumedBatch<V> | undefined;
  /** How many of its records were followed by a request for another. */
  done: number;
}

async function nextBatch<V>(
  transport: Transport,
  consumer: Consumer,
  options: GroupSubscription,
): Promise<ConsumedBatch<V>> {
  const max = options.maxReconnects ?? Number.POSITIVE_INFINITY;
  const reconnects = new Reconnects(transport.backoff, max, max);
  const { limit, maxBytes, waitMs = WAIT_MS, signal, onLost } = options;
  for (;;) {
    try {
      const batch = await consumer.next<V>({ limit, maxBytes, waitMs, signal });
      if (batch.lost.length > 0) {
        if (onLost === undefined) throw recordsLost(batch.lost);
        onLost(batch.lost);
      }
      return batch;
    } catch (error) {
      await reconnects.wait(error, signal);
    }
  }
}

/** Commits what was wholly processed, and leaves. */
async function finish<V>(
  consumers: Consumers,
  consumer: Consumer,
  { batch, done }: Progress<V>,
): Promise<void> {
  try {
    if (batch === undefined) return;
    const places = placesAfter(batch.records, batch.offsets.partitions, done);
    await consumer.commitOwned(batch, places);
  } finally {
    await consumers.close(consumer);
  }
}

function recordsLost(lost: readonly Lost[]): OffsetError {
  const count = lost.reduce((sum, { records }) => sum + records, 0);
  const message = `${count} records were trimmed before the group read them; reset the group there`;
  const details = { lost };
  return new OffsetError({ status: 410, code: 'records-lost', message, retryable: false, details });
}
