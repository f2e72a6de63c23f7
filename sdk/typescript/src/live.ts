// What is published from now on, or from a time on, to topics that match a pattern: Server-Sent
// Events, read with `fetch` so that the key goes into a header. No group, nothing is committed.

import { joinSignals } from './abort.js';
import { errorFromBody, type FourbyfourError, NetworkError } from './errors.js';
import { Reconnects } from './reconnect.js';
import { recordOf, type StreamRecord, type WireRecord } from './records.js';
import { type SseEvent, SseParser } from './sse.js';
import type { CallOptions, Transport } from './transport.js';

/** What to be sent. */
export interface LiveOptions extends CallOptions {
  /** A topic, or a pattern: `*` is one token, `**` any number. */
  pattern: string;
  /** Where to begin; RFC 3339, or a `Date`, for a time. Default `latest`: what comes from now on. */
  from?: 'earliest' | 'latest' | string | Date;
  /** Told each time the server has begun to listen for what is published from then on. */
  onConnected?: () => void;
  /** How often in a row to connect again once it has worked; without end by default. */
  maxReconnects?: number;
  /**
   * How long a connection may be silent before it is taken for lost, in milliseconds; default
   * 45,000, three pings of the server.
   */
  silenceTimeoutMs?: number;
}

/** Statuses that the codes of errors inside a stream would have had. */
const STATUS_OF_CODE: Readonly<Record<string, number>> = {
  'invalid-key': 401,
  'missing-scope': 403,
  'foreign-project': 403,
  'project-not-found': 404,
  'topic-not-found': 404,
  'unknown-member': 409,
  'offset-trimmed': 410,
  'offset-beyond-end': 416,
  'too-many-bytes': 429,
  'shutting-down': 503,
  'store-poisoned': 503,
};

/**
 * The records, in order within each partition; goes on where it was after a lost connection. Ends
 * with `closing`.
 */
export async function* live<V>(
  transport: Transport,
  options: LiveOptions,
  closing: AbortSignal,
): AsyncGenerator<StreamRecord<V>, void, undefined> {
  const ending = joinSignals([options.signal, closing]);
  try {
    yield* connected<V>(transport, { ...options, signal: ending.signal });
  } catch (error) {
    if (!closing.aborted) throw error;
  } finally {
    ending.release();
  }
}

async function* connected<V>(
  transport: Transport,
  options: LiveOptions,
): AsyncGenerator<StreamRecord<V>, void, undefined> {
  const max = options.maxReconnects ?? Number.POSITIVE_INFINITY;
  const reconnects = new Reconnects(transport.backoff, transport.maxRetries, max);
  const parser = { lastEventId: '' };
  for (;;) {
    const joined = joinSignals([options.signal]);
    try {
      const response = await connect(transport, options, parser.lastEventId, joined.signal);
      options.onConnected?.();
      const silence = { ms: options.silenceTimeoutMs ?? 45_000, abort: joined.abort };
      for await (const event of eventsOf(response, parser, silence)) {
        if (event.type === 'error') throw errorOfEvent(event);
        if (event.type !== 'message') continue;
        reconnects.worked();
        yield recordOf<V>(JSON.parse(event.data) as WireRecord);
      }
      throw lost('the server ended the stream');
    } catch (error) {
      await reconnects.wait(joined.signal.aborted ? joined.signal.reason : error, options.signal);
    } finally {
      joined.release();
      joined.abort(undefined);
    }
  }
}

function connect(
  transport: Transport,
  options: LiveOptions,
  lastEventId: string,
  signal: AbortSignal,
): Promise<Response> {
  const { pattern, from } = options;
  const headers: Record<string, string> = { Accept: 'text/event-stream' };
  if (lastEventId !== '') headers['Last-Event-ID'] = lastEventId;
  const begin = from instanceof Date ? from.toISOString() : from;
  const query = { pattern, from: begin };
  return transport.open({ method: 'GET', path: '/subscribe', query, headers, signal });
}

/** Events as they come. `place` is what to resume from: it is behind what was yielded. */
async function* eventsOf(
  response: Response,
  place: { lastEventId: string },
  silence: Silence,
): AsyncGenerator<SseEvent> {
  const parser = new SseParser();
  parser.lastEventId = place.lastEventId;
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await read(reader, silence);
      if (done) return;
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
        place.lastEventId = parser.lastEventId;
        yield event;
      }
      place.lastEventId = parser.lastEventId;
    }
  } finally {
    // It may have broken already.
    await reader.cancel().catch(() => undefined);
  }
}

/** What to do if nothing comes for so long while something is waited for. */
interface Silence {
  ms: number;
  abort: (reason: unknown) => void;
}

async function read(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  { ms, abort }: Silence,
): Promise<ReadableStreamReadResult<Uint8Array>> {
  const timer = setTimeout(() => abort(lost(`nothing came for ${ms} ms`)), ms);
  try {
    return await reader.read();
  } catch (error) {
    throw lost('the connection was lost', error);
  } finally {
    clearTimeout(timer);
  }
}

function errorOfEvent(event: SseEvent): FourbyfourError {
  const body: unknown = JSON.parse(event.data);
  const { code } = errorFromBody(0, body);
  return errorFromBody(STATUS_OF_CODE[code] ?? 0, body);
}

function lost(message: string, cause?: unknown): NetworkError {
  return new NetworkError({ status: 0, code: 'network', message, retryable: true, cause });
}
