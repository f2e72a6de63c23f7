// Sends events in batches under a sequence, so that whatever is repeated is stored once. One
// request is under way at a time: events collect meanwhile.

import { ClosedError, errorOf, FencedError, FourbyfourError, NotFoundError } from './errors.js';
import { type Entry, type Limits, Outbox, type Sent, settle } from './outbox.js';
import type { Ack, Published } from './positions.js';
import { randomId } from './random.js';
import { eventToWire, fromWire, type NewEvent } from './records.js';
import { invalid, path, type Transport } from './transport.js';

const encoder = new TextEncoder();

/** How to produce. */
export interface ProducerOptions {
  /** Where events go that are sent without a topic. */
  topic?: string;
  /**
   * A name that outlives this process, 1–128 printable ASCII characters: a new producer under it
   * fences the former. One at random if it is not given.
   */
  producerId?: string;
  /** How long an event waits for others, in milliseconds; default 5. */
  lingerMs?: number;
  /** At most so many events to a request, up to 10,000; default 1,000. */
  batchMax?: number;
  /** At most so many bytes of events to a request, but one event at least; default 1 MiB. */
  batchBytesMax?: number;
  /** When the server answers; as the topic says if it is not given. */
  ack?: Ack;
  /** How often a batch is repeated before it is given up; default 10. */
  maxRetries?: number;
}

/** Sends events in batches. Events of one topic are stored in the order in which they are sent. */
export class Producer {
  readonly #transport: Transport;
  readonly #options: ProducerOptions;
  readonly #id: string;
  readonly #outbox: Outbox;
  #epoch: number | undefined;
  #sequence = 0;
  #linger: ReturnType<typeof setTimeout> | undefined;
  #sending: Promise<void> | undefined;
  readonly #onClosed: () => void;
  #isClosed = false;
  /** Another has taken over: nothing can be sent any more. */
  #fenced: FencedError | undefined;

  /** @internal Made by `client.stream.producer`. */
  constructor(transport: Transport, options: ProducerOptions, onClosed: () => void) {
    this.#transport = transport;
    this.#onClosed = onClosed;
    this.#options = options;
    this.#id = options.producerId ?? randomId();
    // Nobody has used a name at random.
    this.#epoch = options.producerId === undefined ? 0 : undefined;
    const { batchMax = 1_000, batchBytesMax = 1 << 20 } = options;
    const limits: Limits = { eventsMax: batchMax, bytesMax: batchBytesMax };
    this.#outbox = new Outbox(limits);
  }

  /**
   * Sends one event with others; resolves once it is stored.
   *
   * Rejects with `ValidationError` if it is refused (the others of its batch are not), `FencedError`
   * if another producer has the name, and `NetworkError` or `ServerError` if repeating was of no
   * use: it is unknown then whether it is stored.
   */
  send(event: NewEvent): Promise<Sent>;
  send(topic: string, event: NewEvent): Promise<Sent>;
  async send(...sent: [NewEvent] | [string, NewEvent]): Promise<Sent> {
    const [topic, event] = sent.length === 1 ? [this.#options.topic, sent[0]] : sent;
    if (topic === undefined) throw invalid('topic', 'neither the producer nor the event has one');
    if (this.#isClosed) throw new ClosedError('the producer');
    if (this.#fenced !== undefined) throw this.#fenced;
    const json = JSON.stringify(eventToWire(event));
    const result = new Promise<Sent>((resolve, reject) => {
      this.#outbox.add(topic, { json, bytes: encoder.encode(json).length, resolve, reject });
    });
    if (this.#outbox.isFull(topic)) this.#start();
    else this.#linger ??= setTimeout(() => this.#start(), this.#options.lingerMs ?? 5);
    return result;
  }

  /** Sends at once what waits; resolves when all that was sent is stored or refused. */
  async flush(): Promise<void> {
    this.#start();
    await this.#sending;
  }

  /** Flushes; takes no more events. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.flush();
    this.#onClosed();
  }

  #start(): void {
    clearTimeout(this.#linger);
    this.#linger = undefined;
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
  }

  async #sendAll(): Promise<void> {
    for (let batch = this.#outbox.take(); batch !== undefined; batch = this.#outbox.take()) {
      await this.#send(batch.topic, batch.entries);
    }
  }

  /** Sends a batch until all of its entries are settled. */
  async #send(topic: string, entries: Entry[]): Promise<void> {
    let left = entries;
    while (left.length > 0) {
      try {
        if (this.#fenced !== undefined) throw this.#fenced;
        settle(left, await this.#publish(topic, left));
        return;
      } catch (error) {
        // A request that is refused takes no sequence: what is left is sent under the same.
        const refused = this.#refused(left, error);
        for (const entry of refused) entry.reject(error);
        left = left.filter((entry) => !refused.includes(entry));
      }
    }
  }

  /** Which of the entries an error is about. */
  #refused(entries: readonly Entry[], error: unknown): readonly Entry[] {
    if (error instanceof FencedError) {
      this.#fenced = error;
    } else if (!(error instanceof FourbyfourError) || error.retryable) {
      // It may be stored or not, or be stored yet: in another epoch it cannot be any more, and the
      // sequence begins anew.
      if (this.#epoch !== undefined) this.#epoch += 1;
      this.#sequence = 0;
    } else {
      const { index } = error.details;
      const entry = typeof index === 'number' ? entries[index] : undefined;
      if (entry !== undefined) return [entry];
    }
    return entries;
  }

  async #publish(topic: string, entries: readonly Entry[]): Promise<Published> {
    this.#epoch ??= await this.#nextEpoch();
    let mayBeStored = false;
    const answer = await this.#transport.call({
      method: 'POST',
      path: path`/topics/${topic}/events`,
      query: { ack: this.#options.ack, on_reject: 'partial' },
      headers: {
        'Content-Type': 'application/x-ndjson',
        'Producer-Id': this.#id,
        'Producer-Epoch': String(this.#epoch),
        'Producer-Seq': String(this.#sequence),
      },
      body: entries.map(({ json }) => json).join('\n'),
      idempotent: true,
      maxRetries: this.#options.maxRetries ?? 10,
      onRepeat: (failure) => {
        mayBeStored ||= failure.status !== 429 && failure.code !== 'request-in-flight';
      },
    });
    const published = fromWire<Published>(answer);
    if (published.duplicate && !mayBeStored) throw shared(this.#id);
    this.#sequence += 1;
    return published;
  }

  /** The epoch that fences whoever had the name before. */
  async #nextEpoch(): Promise<number> {
    try {
      const call = { method: 'GET', path: path`/producers/${this.#id}` } as const;
      return (await this.#transport.call<{ epoch: number }>(call)).epoch + 1;
    } catch (error) {
      if (error instanceof NotFoundError && error.code === 'producer-not-found') return 0;
      throw error;
    }
  }
}

/** What was sent for the first time was stored before: two use the name, and nothing was stored. */
function shared(id: string): FourbyfourError {
  const message = `another producer uses the id \`${id}\` in the same epoch`;
  return errorOf({ status: 409, code: 'producer-shared', message, retryable: false });
}
