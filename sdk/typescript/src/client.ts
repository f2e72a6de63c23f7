// The entry: where the server is, who asks, and for which project.

import { Stream } from './stream.js';
import { invalid, Transport } from './transport.js';

/** How to reach Stream. */
export interface FourbyfourOptions {
  /** `sk_…`, sent as a bearer token. */
  apiKey: string;
  /** The project that all calls are about. */
  projectId: string;
  /** Where the server is; default `http://127.0.0.1:4404`, where `stream serve` listens. */
  baseUrl?: string;
  /** How long the server may take for an answer, in milliseconds; default 30,000. */
  timeoutMs?: number;
  /**
   * How often a call that is safe to repeat is repeated, after failures that may pass; default 4.
   * The waits between grow from 0.1 s to 5 s, or to what the server asks for.
   */
  maxRetries?: number;
  /** Instead of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** A client of one project. Cheap to make; holds no connection of its own. */
export class Fourbyfour {
  /** Topics, groups, subscriptions, producers, transactions. */
  readonly stream: Stream;

  constructor(options: FourbyfourOptions) {
    const { apiKey, projectId, baseUrl = 'http://127.0.0.1:4404' } = options;
    if (!apiKey) throw invalid('api-key', 'it is missing');
    if (!projectId) throw invalid('project-id', 'it is missing');
    this.stream = new Stream(
      new Transport({
        apiKey,
        projectId,
        baseUrl: baseUrl.replace(/\/+$/, ''),
        timeoutMs: options.timeoutMs ?? 30_000,
        maxRetries: options.maxRetries ?? 4,
        backoff: { baseMs: 100, maxMs: 5_000 },
        // Browsers refuse a `fetch` that is called as a method of something else.
        fetch: options.fetch ?? ((...call) => globalThis.fetch(...call)),
      }),
    );
  }

  /**
   * Sends what producers still hold, and leaves the groups that were joined, so that others go on
   * at once. What was read last and is not committed comes again.
   */
  async close(): Promise<void> {
    await this.stream.close();
  }
}
