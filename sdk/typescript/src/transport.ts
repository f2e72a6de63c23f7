// One call of the API: address, key, deadline, repeats, and errors out of answers. It knows nothing
// of topics and groups.

import { joinSignals } from './abort.js';
import { errorFromBody, errorOf, FourbyfourError, NetworkError } from './errors.js';
import { type Backoff, backoffMs, retryAfterMs, sleep } from './time.js';

/** How to reach a project. */
export interface TransportOptions {
  baseUrl: string;
  apiKey: string;
  projectId: string;
  fetch: typeof globalThis.fetch;
  timeoutMs: number;
  maxRetries: number;
  backoff: Backoff;
}

/** What every call takes. */
export interface CallOptions {
  /** Gives up the call; it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** A call to be made. */
export interface Call extends CallOptions {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below the project, starting with `/`; made by `path`. */
  path: string;
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is, instead of `json`; `headers` names its type. */
  body?: string;
  /**
   * Whether a repeat does no harm, so that it is made when no answer came, too; `GET` calls are.
   * Others are repeated only when the server has refused them with 429.
   */
  idempotent?: boolean;
  /** How long the server may take beyond the client's timeout, in milliseconds: a long poll. */
  waitMs?: number;
  /** How often to repeat, instead of what the client says. */
  maxRetries?: number;
  /** Told before each repeat what failed. */
  onRepeat?: (failure: FourbyfourError) => void;
}

/** A path of the API out of a template; what is put into it is escaped. */
export function path(parts: TemplateStringsArray, ...names: (string | number)[]): string {
  return String.raw({ raw: parts }, ...names.map((name) => encodeURIComponent(name)));
}

/** Makes calls to one project. */
export class Transport {
  readonly #options: TransportOptions;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** How long to wait between attempts. */
  get backoff(): Backoff {
    return this.#options.backoff;
  }

  /** How often a call is repeated. */
  get maxRetries(): number {
    return this.#options.maxRetries;
  }

  /**
   * Makes a call and reads its answer; `undefined` if that is empty. The caller says what type it
   * has: it is the server's contract, and not checked here.
   */
  async call<T>(asked: Call): Promise<T> {
    // Once, so that a repeat has the same bytes even if the caller has changed the objects.
    const call = encoded(asked);
    const retries = call.maxRetries ?? this.#options.maxRetries;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return (await this.#attempt(call)) as T;
      } catch (error) {
        if (attempt >= retries || !mayRepeat(call, error)) throw error;
        const wait = backoffMs(this.#options.backoff, attempt, error.retryAfterMs);
        await sleep(wait, call.signal);
        call.onRepeat?.(error);
      }
    }
  }

  /**
   * Opens a stream: the answer's head is there when this returns, its body is still to be read, and
   * `signal` ends it. Not repeated, and bounded in time only until the head is there.
   */
  async open(call: Call): Promise<Response> {
    const joined = joinSignals([call.signal]);
    const timer = setTimeout(() => joined.abort(timedOut()), this.#options.timeoutMs);
    try {
      const response = await this.#fetch(call, joined.signal);
      if (!response.ok) throw await failure(response);
      return response;
    } catch (error) {
      throw asFailure(error, call.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  async #attempt(call: Call): Promise<unknown> {
    const joined = joinSignals([call.signal]);
    const ms = this.#options.timeoutMs + (call.waitMs ?? 0);
    const timer = setTimeout(() => joined.abort(timedOut()), ms);
    try {
      const response = await this.#fetch(call, joined.signal);
      if (!response.ok) throw await failure(response);
      const text = await response.text();
      return text === '' ? undefined : JSON.parse(text);
    } catch (error) {
      throw asFailure(error, call.signal);
    } finally {
      clearTimeout(timer);
      joined.release();
    }
  }

  async #fetch(call: Call, signal: AbortSignal): Promise<Response> {
    const { baseUrl, projectId, apiKey } = this.#options;
    const url = new URL(`${baseUrl}/projects/${encodeURIComponent(projectId)}${call.path}`);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers = { Authorization: `Bearer ${apiKey}`, ...call.headers };
    return this.#options.fetch(url.href, { method: call.method, headers, body: call.body, signal });
  }
}

function encoded({ json, ...call }: Call): Call {
  if (json === undefined) return call;
  const headers = { ...call.headers, 'Content-Type': 'application/json' };
  return { ...call, headers, body: JSON.stringify(json) };
}

function mayRepeat(call: Call, error: unknown): error is FourbyfourError {
  if (!(error instanceof FourbyfourError) || !error.retryable) return false;
  if (error.status === 429) return true;
  // A gap is there for good: a client has one request of a producer under way.
  return (call.idempotent ?? call.method === 'GET') && error.code !== 'sequence-gap';
}

async function failure(response: Response): Promise<FourbyfourError> {
  const text = await response.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's page, or a bare status: the status says all there is.
  }
  return errorFromBody(response.status, body, {
    requestId: response.headers.get('x-request-id') ?? undefined,
    retryAfterMs: retryAfterMs(response.headers.get('retry-after'), Date.now()),
  });
}

function timedOut(): NetworkError {
  const message = 'the server did not answer in time';
  return new NetworkError({ status: 0, code: 'timeout', message, retryable: true });
}

/** What a failed `fetch` is to the caller. */
function asFailure(error: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof FourbyfourError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
  const message = `no answer from the server: ${reason}${cause === '' ? '' : `: ${cause}`}`;
  return errorOfNetwork(message, error);
}

function errorOfNetwork(message: string, cause: unknown): NetworkError {
  return new NetworkError({ status: 0, code: 'network', message, retryable: true, cause });
}

/** A call's argument that breaks a rule which the client knows by itself. */
export function invalid(field: string, message: string): FourbyfourError {
  const code = `invalid-${field}`;
  return errorOf({ status: 400, code, message: `${field}: ${message}`, retryable: false });
}
