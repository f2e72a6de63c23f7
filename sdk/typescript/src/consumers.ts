// The consumers of one client: one for each topic and group, and those of its subscriptions.

import { Consumer } from './consumer.js';
import { ClosedError } from './errors.js';
import type { MemberOptions } from './member.js';
import type { Transport } from './transport.js';

/** Makes consumers, and closes them all with the client. */
export class Consumers {
  readonly #transport: Transport;
  readonly #ofTopics = new Map<string, Consumer>();
  readonly #open = new Set<Consumer>();
  #isClosed = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** The one that reads `topic` as `options.group`, if there is one already. */
  find(topic: string, group: string): Consumer | undefined {
    return this.#ofTopics.get(nameOf(topic, group));
  }

  /** The one that reads `topic` as `options.group`; the first call's options make it. */
  of(topic: string, options: Omit<MemberOptions, 'subscriptions' | 'mustExist'>): Consumer {
    const found = this.find(topic, options.group);
    if (found !== undefined) return found;
    const consumer = this.open({ ...options, subscriptions: [topic], mustExist: topic });
    this.#ofTopics.set(nameOf(topic, options.group), consumer);
    return consumer;
  }

  /** One of its own. */
  open(options: MemberOptions): Consumer {
    if (this.#isClosed) throw new ClosedError('the client');
    const consumer = new Consumer(this.#transport, options);
    this.#open.add(consumer);
    return consumer;
  }

  /** Closes one. */
  async close(consumer: Consumer): Promise<void> {
    this.#open.delete(consumer);
    await consumer.close();
  }

  /** Closes all; no more are made. Throws what the first one threw, once all have been tried. */
  async closeAll(): Promise<void> {
    this.#isClosed = true;
    const closing = [...this.#open].map((consumer) => this.close(consumer));
    this.#ofTopics.clear();
    const failed = (await Promise.allSettled(closing)).find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }
}

/** A topic's name has no slash. */
function nameOf(topic: string, group: string): string {
  return `${topic}/${group}`;
}
