// How often, and after how long, a subscription tries again.

import { FourbyfourError } from './errors.js';
import { type Backoff, backoffMs, sleep } from './time.js';

/** Counts attempts in a row that failed. */
export class Reconnects {
  readonly #backoff: Backoff;
  readonly #maxFirst: number;
  readonly #max: number;
  #failed = 0;
  #hasWorked = false;

  /** At most `maxFirst` repeats before it has worked once, and `max` in a row from then on. */
  constructor(backoff: Backoff, maxFirst: number, max: number) {
    this.#backoff = backoff;
    this.#maxFirst = Math.min(maxFirst, max);
    this.#max = max;
  }

  /** It works. */
  worked(): void {
    this.#failed = 0;
    this.#hasWorked = true;
  }

  /** Waits until it is time to try again; throws `error` if that is of no use, or was enough. */
  async wait(error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (!(error instanceof FourbyfourError) || !error.retryable) throw error;
    if (this.#failed >= (this.#hasWorked ? this.#max : this.#maxFirst)) throw error;
    await sleep(backoffMs(this.#backoff, this.#failed, error.retryAfterMs), signal);
    this.#failed += 1;
  }
}
