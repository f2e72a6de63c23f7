// Waiting: timers that keep no process alive, and how long to wait before trying again.

/** Starts a timer that does not keep a Node process alive; returns what stops it. */
export function startTimer(run: () => void, ms: number): () => void {
  const timer: unknown = setTimeout(run, ms);
  if (hasUnref(timer)) timer.unref();
  return () => clearTimeout(timer as number);
}

function hasUnref(timer: unknown): timer is { unref(): void } {
  return typeof timer === 'object' && timer !== null && 'unref' in timer;
}

/**
 * Waits, and keeps a process alive for it: somebody awaits the result.
 *
 * Rejects with the signal's reason when it is aborted.
 */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}

/** Between which times attempts are repeated, in milliseconds. */
export interface Backoff {
  /** The longest wait before the first repeat; it doubles with each. */
  baseMs: number;
  /** The longest wait of all. */
  maxMs: number;
}

/**
 * How long to wait before repeat `attempt` (from 0): a random part of a bound that doubles, so that
 * clients that failed together do not come back together. Never less than what the server asked for.
 */
export function backoffMs(
  { baseMs, maxMs }: Backoff,
  attempt: number,
  retryAfterMs = 0,
  random: () => number = Math.random,
): number {
  const bound = Math.min(maxMs, baseMs * 2 ** attempt);
  return Math.max(retryAfterMs, bound / 2 + (random() * bound) / 2);
}

/** Milliseconds of a `Retry-After` header, which holds seconds or a date. */
export function retryAfterMs(header: string | null, now: number): number | undefined {
  if (header === null || header.trim() === '') return undefined;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}
