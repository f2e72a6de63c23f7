// `client.stream.topics`.

import type { ConsumedBatch } from './batch.js';
import type { NextOptions } from './consumer.js';
import type { Consumers } from './consumers.js';
import type { Ack, Produced, Published } from './positions.js';
import { produce, produceBatch, type PublishBatchOptions, type PublishOptions } from './publish.js';
import { fromWire, type NewEvent, toWire } from './records.js';
import { type CallOptions, path, type Transport } from './transport.js';

/** A topic to be made. */
export interface NewTopic {
  /** Tokens of `[A-Za-z0-9_-]` joined by `.`, not starting with `_`; at most 249 characters. */
  name: string;
  /** 1–1,024; default 1. */
  partitions?: number;
  /** Records older than this are trimmed; 0 keeps them for ever. Default 168: a week. */
  retentionHours?: number;
  /** Each partition is trimmed down to this; `null` (default) does not. */
  retentionBytes?: number | null;
  /** For people. */
  description?: string | null;
  /** When publishes are answered; default `durable`. */
  ack?: Ack;
}

/** A topic. */
export interface Topic extends Required<NewTopic> {
  /** RFC 3339. */
  createdAt: string;
}

/** What is to be changed of a topic. */
export interface TopicPatch extends Partial<Omit<NewTopic, 'name'>> {
  /** It is understood that with more partitions, keys change their partition. */
  acceptKeyMoves?: boolean;
}

/** Figures of a topic. */
export interface TopicStats {
  name: string;
  /** Ever published. */
  totalEvents: number;
  /** Held now. */
  totalBytes: number;
  /** Over the last minute. */
  eventsPerSecond: number;
  /** RFC 3339. */
  lastEventAt: string | null;
}

/** A part of a list. */
export interface PageOptions extends CallOptions {
  /** At most so many, 1–1,000; all if it is not given. */
  limit?: number;
  /** Start behind this one: `next` of the page before. */
  after?: string;
}

/** How to consume; `sessionTimeoutMs` … hold from the first call of a topic and group on. */
export interface ConsumeOptions extends NextOptions {
  /** 1–128 of `[A-Za-z0-9._-]`. A group without commits starts at the earliest record. */
  group: string;
  /** How long the server waits for a sign of life, in milliseconds; 500–600,000, default 30,000. */
  sessionTimeoutMs?: number;
  /** A name that outlives this process: who comes back under it has its partitions again. */
  instanceId?: string;
  /** Leaves the group if `consume` was not called for so long, in ms; default five minutes. */
  idleTimeoutMs?: number;
}

/** How long `consume` waits if there is no record yet: a new member may wait for its share. */
const WAIT_MS_DEFAULT = 1_000;

/** Topics: what they are, what goes into them, what comes out. */
export class Topics {
  readonly #transport: Transport;
  readonly #consumers: Consumers;

  /** @internal Reached as `client.stream.topics`. */
  constructor(transport: Transport, consumers: Consumers) {
    this.#transport = transport;
    this.#consumers = consumers;
  }

  /**
   * Makes a topic; if there is one with the same configuration, it is answered.
   *
   * Throws `ConflictError` `topic-exists` if there is one with another configuration.
   */
  async create(topic: NewTopic, options: CallOptions = {}): Promise<Topic> {
    const json = toWire(topic);
    return fromWire(await this.#call('POST', '/topics', { json, idempotent: true, ...options }));
  }

  /** Describes a topic. */
  async get(name: string, options: CallOptions = {}): Promise<Topic> {
    return fromWire(await this.#call('GET', path`/topics/${name}`, options));
  }

  /** Lists topics in the order of their names; `next` is there if there are more. */
  async list(options: PageOptions = {}): Promise<{ topics: Topic[]; next?: string }> {
    const { limit, after, signal } = options;
    return fromWire(await this.#call('GET', '/topics', { query: { limit, after }, signal }));
  }

  /** Changes a topic. Throws `ConflictError` `key-moves` unless that is accepted. */
  async update(name: string, patch: TopicPatch, options: CallOptions = {}): Promise<Topic> {
    const call = { json: toWire(patch), idempotent: true, ...options };
    return fromWire(await this.#call('PATCH', path`/topics/${name}`, call));
  }

  /** Deletes a topic and its records. */
  async delete(name: string, options: CallOptions = {}): Promise<void> {
    await this.#call('DELETE', path`/topics/${name}`, options);
  }

  /** Figures of a topic. */
  async stats(name: string, options: CallOptions = {}): Promise<TopicStats> {
    return fromWire(await this.#call('GET', path`/topics/${name}/stats`, options));
  }

  /**
   * Publishes one event: it is stored, once, when this returns. Repeats itself if no answer comes.
   *
   * Throws `ValidationError` if a schema or plugin rejects it, `NotFoundError` without the topic.
   */
  produce(topic: string, event: NewEvent, options: PublishOptions = {}): Promise<Produced> {
    return produce(this.#transport, topic, event, options);
  }

  /** Publishes many events, all or none unless `onReject` is `partial`; as `produce` otherwise. */
  produceBatch(
    topic: string,
    events: readonly NewEvent[],
    options: PublishBatchOptions = {},
  ): Promise<Published> {
    return produceBatch(this.#transport, topic, events, options);
  }

  /**
   * Reads the next records of the topic as a member of a group, and joins it at the first call. The
   * batch before is committed by this call, so that a record that was not processed comes again: at
   * least once. Waits a second by default if there is no record yet.
   *
   * Throws `NotFoundError` without the topic, and `FencedError` if another client has joined under
   * its `instanceId`.
   */
  async consume<V = unknown>(topic: string, options: ConsumeOptions): Promise<ConsumedBatch<V>> {
    const { group, sessionTimeoutMs, instanceId, idleTimeoutMs, ...next } = options;
    const member = { group, sessionTimeoutMs, instanceId, idleTimeoutMs };
    const consumer = this.#consumers.of(topic, member);
    return consumer.next<V>({ ...next, waitMs: next.waitMs ?? WAIT_MS_DEFAULT });
  }

  /**
   * Commits what this client's last `consume` of the topic and group has read; does nothing if that
   * is committed. As `commit` of the batch otherwise.
   */
  async commit(topic: string, options: { group: string } & CallOptions): Promise<void> {
    await this.#consumers.find(topic, options.group)?.commit({ signal: options.signal });
  }

  #call(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    to: string,
    rest: Partial<Parameters<Transport['call']>[0]>,
  ): Promise<unknown> {
    return this.#transport.call({ ...rest, method, path: to });
  }
}
