// `client.stream`.

import { Consumers } from './consumers.js';
import { Groups } from './groups.js';
import type { Transacted } from './positions.js';
import { Producer, type ProducerOptions } from './producer.js';
import { type NewTransaction, type PublishOptions, transact } from './publish.js';
import type { StreamRecord } from './records.js';
import {
  type GroupSubscription,
  type LiveSubscription,
  subscribeAsGroup,
  subscribeLive,
} from './subscribe.js';
import { Topics } from './topics.js';
import type { Transport } from './transport.js';

/** Events of one project. */
export class Stream {
  readonly topics: Topics;
  readonly groups: Groups;
  readonly #transport: Transport;
  readonly #consumers: Consumers;
  readonly #closing = new AbortController();
  readonly #producers = new Set<Producer>();

  /** @internal Reached as `client.stream`. */
  constructor(transport: Transport) {
    this.#transport = transport;
    this.#consumers = new Consumers(transport);
    this.topics = new Topics(transport, this.#consumers);
    this.groups = new Groups(transport);
  }

  /**
   * Records of all topics that a pattern matches, for `for await`.
   *
   * With a `group`, as a member of it: records that were wholly processed, so that the loop has
   * asked for another after them, are committed batch by batch and when the loop ends; the one at
   * which it ends comes again. Without one, live: nothing is committed.
   *
   * To end one that waits, abort its `signal`: `return` of the iterator waits for the next record.
   * Lost connections are made up for. The loop throws what cannot be, and the signal's reason; it
   * ends when the client is closed.
   */
  subscribe<V = unknown>(
    options: GroupSubscription | LiveSubscription,
  ): AsyncGenerator<StreamRecord<V>, void, undefined> {
    return options.group === undefined
      ? subscribeLive<V>(this.#transport, options, this.#closing.signal)
      : subscribeAsGroup<V>(this.#transport, this.#consumers, options);
  }

  /** A producer that sends events in batches and repeats them safely. Close it at the end. */
  producer(options: ProducerOptions = {}): Producer {
    const producer = new Producer(this.#transport, options, () => {
      this.#producers.delete(producer);
    });
    this.#producers.add(producer);
    return producer;
  }

  /**
   * Publishes events to any topics and commits offsets of a member, together or not at all; repeats
   * itself safely if no answer comes.
   *
   * Throws what publishing and committing throw; nothing is stored then.
   */
  transaction(transaction: NewTransaction, options: PublishOptions = {}): Promise<Transacted> {
    return transact(this.#transport, transaction, options);
  }

  /** @internal Called by `client.close`. */
  async close(): Promise<void> {
    this.#closing.abort();
    const producers = [...this.#producers].map((producer) => producer.close());
    const ended = await Promise.allSettled([...producers, this.#consumers.closeAll()]);
    const failed = ended.find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }
}
