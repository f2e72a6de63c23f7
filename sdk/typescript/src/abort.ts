// Several reasons to stop, as one signal. `AbortSignal.any` would do, but keeps what it watches
// from being collected in older engines when the watched signal lives long, as a client's does.

/** A signal that is aborted with the first of others; `release` stops the watching. */
export interface Joined {
  signal: AbortSignal;
  /** Aborts the signal itself. */
  abort(reason: unknown): void;
  /** Lets go of the others. */
  release(): void;
}

/** One signal out of those that are given. */
export function joinSignals(signals: readonly (AbortSignal | undefined)[]): Joined {
  const controller = new AbortController();
  const releases: (() => void)[] = [];
  const release = (): void => {
    for (const off of releases.splice(0)) off();
  };
  for (const signal of signals) {
    if (signal === undefined) continue;
    if (signal.aborted) {
      controller.abort(signal.reason);
      break;
    }
    const stop = (): void => controller.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    releases.push(() => signal.removeEventListener('abort', stop));
  }
  return { signal: controller.signal, abort: (reason) => controller.abort(reason), release };
}
