// The calls that store events, made safe to repeat by an idempotency key.

import type { Ack, Produced, Published, Transacted } from './positions.js';
import { randomId } from './random.js';
import { eventToWire, fromWire, type NewEvent } from './records.js';
import { type Place, placeToWire } from './places.js';
import { type CallOptions, path, type Transport } from './transport.js';

/** How to publish. */
export interface PublishOptions extends CallOptions {
  /** When to answer; as the topic says if it is not given. */
  ack?: Ack;
  /**
   * Names this publish for 24 hours within its topic, so that a repeat, also by another process,
   * stores nothing; 1–128 printable ASCII characters. One at random if it is not given, which makes
   * this client's own repeats safe.
   */
  idempotencyKey?: string;
}

/** How to publish many. */
export interface PublishBatchOptions extends PublishOptions {
  /**
   * What becomes of the others if some events are rejected: `refuse` (default) stores none, and
   * throws a `ValidationError` `events-rejected`; `partial` stores them and lists the `rejected`.
   */
  onReject?: 'refuse' | 'partial';
}

/** Offsets of a member of a group, to be committed in a transaction; `ConsumedBatch.offsets`. */
export interface MemberOffsets {
  group: string;
  member: string;
  partitions: readonly Place[];
}

/** Events for one topic. */
export interface TopicEvents {
  topic: string;
  /** At least one. */
  events: readonly NewEvent[];
}

/** Events and offsets that are stored together or not at all. */
export interface NewTransaction {
  publish?: readonly TopicEvents[];
  offsets?: MemberOffsets;
}

/** Stores one event. */
export async function produce(
  transport: Transport,
  topic: string,
  event: NewEvent,
  options: PublishOptions = {},
): Promise<Produced> {
  const answer = await transport.call({
    method: 'POST',
    path: path`/topics/${topic}/produce`,
    query: { ack: options.ack },
    headers: identity(options),
    json: eventToWire(event),
    idempotent: true,
    signal: options.signal,
  });
  return fromWire(answer);
}

/** Stores many events, all or none unless `onReject` says otherwise. */
export async function produceBatch(
  transport: Transport,
  topic: string,
  events: readonly NewEvent[],
  options: PublishBatchOptions = {},
): Promise<Published> {
  const answer = await transport.call({
    method: 'POST',
    path: path`/topics/${topic}/events`,
    query: { ack: options.ack, on_reject: options.onReject },
    headers: identity(options),
    json: events.map(eventToWire),
    idempotent: true,
    signal: options.signal,
  });
  return fromWire(answer);
}

/** Stores events and offsets, together or not at all. */
export async function transact(
  transport: Transport,
  transaction: NewTransaction,
  options: PublishOptions = {},
): Promise<Transacted> {
  const { publish, offsets } = transaction;
  const answer = await transport.call({
    method: 'POST',
    path: '/transactions',
    query: { ack: options.ack },
    headers: identity(options),
    json: {
      publish: publish?.map(({ topic, events }) => ({ topic, events: events.map(eventToWire) })),
      offsets: offsets && { ...offsets, partitions: offsets.partitions.map(placeToWire) },
    },
    idempotent: true,
    signal: options.signal,
  });
  return fromWire(answer);
}

function identity(options: PublishOptions): Record<string, string> {
  const key = options.idempotencyKey ?? randomId();
  // A string of structured fields, so that the key may begin with a quote.
  return { 'Idempotency-Key': `"${key.replace(/["\\]/g, '\\$&')}"` };
}
