import { expect, test } from 'vitest';

import {
  AuthError,
  ConflictError,
  FencedError,
  FourbyfourError,
  NetworkError,
  NotFoundError,
  OffsetError,
  RateLimitError,
  ServerError,
  ValidationError,
} from '../../src/index.js';
import { client, fresh, topic } from '../support/client.js';

/** What a promise rejects with. */
async function failure(promise: Promise<unknown>): Promise<FourbyfourError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof FourbyfourError) return error;
  throw new Error(`expected an error of the client, got ${String(error)}`);
}

/** A client whose answers are these, one after another, and the requests that it made. */
function answered(...answers: (Response | Error)[]) {
  const requests: { method: string; headers: Headers; body: unknown }[] = [];
  const of = client({
    fetch: async (_, init) => {
      requests.push({
        method: init?.method ?? '',
        headers: new Headers(init?.headers),
        body: init?.body,
      });
      const answer = answers.shift() ?? new Error('no more answers');
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  return { topics: of.stream.topics, requests };
}

function refusal(status: number, code: string, fields = {}, headers = {}): Response {
  const error = { code, message: `it is ${code}`, retryable: false, ...fields };
  return new Response(JSON.stringify({ error }), { status, headers });
}

test('what the server refuses is told by classes, with all that it says', async () => {
  const of = client();
  const { topics, groups } = of.stream;
  const name = await topic(of);
  const stranger = client({ apiKey: 'sk_wrong-key-wrong' }).stream.topics;
  const misplaced = { value: 1, partition: 7 };
  const cases: [() => Promise<unknown>, typeof FourbyfourError, number, string][] = [
    [() => topics.get('none'), NotFoundError, 404, 'topic-not-found'],
    [() => topics.produce('none', { value: 1 }), NotFoundError, 404, 'topic-not-found'],
    [() => topics.consume('none', { group: 'g' }), NotFoundError, 404, 'topic-not-found'],
    [() => groups.get('none'), NotFoundError, 404, 'group-not-found'],
    [() => topics.create({ name, partitions: 2 }), ConflictError, 409, 'topic-exists'],
    [() => topics.create({ name: 'a b' }), ValidationError, 400, 'invalid-name'],
    [() => topics.consume(name, { group: 'a b' }), ValidationError, 400, 'invalid-group'],
    [() => topics.produce(name, misplaced), ValidationError, 400, 'invalid-partition'],
    [() => topics.produceBatch(name, []), ValidationError, 400, 'empty-batch'],
    [() => groups.reset('g', { topic: name, offset: 9 }), OffsetError, 416, 'offset-beyond-end'],
    [() => stranger.list(), AuthError, 401, 'invalid-key'],
  ];
  for (const [call, type, status, code] of cases) {
    const error = await failure(call());
    expect(error).toBeInstanceOf(type);
    expect({ status: error.status, code: error.code }).toEqual({ status, code });
    expect(error.name).toBe(type.name);
    expect(error.retryable).toBe(false);
    expect(error.requestId).toMatch(/^req_/);
    expect(error.details).toMatchObject({ code, message: error.message });
  }
});

test('every status has its class, whatever the body is', async () => {
  const cases: [number, typeof FourbyfourError][] = [
    [403, AuthError],
    [410, OffsetError],
    [413, ValidationError],
    [415, ValidationError],
    [418, FourbyfourError],
    [422, ValidationError],
    [500, ServerError],
    [507, ServerError],
  ];
  for (const [status, type] of cases) {
    const error = await failure(answered(new Response('<html>', { status })).topics.get('t'));
    expect(error.constructor).toBe(type);
    expect(error).toMatchObject({ code: `http-${status}`, status, retryable: false });
  }
  const fenced = await failure(answered(refusal(403, 'stale-epoch')).topics.get('t'));
  expect(fenced).toBeInstanceOf(FencedError);
});

test('what is safe to repeat is repeated, with the same key and bytes', async () => {
  const stored = () => new Response('{"topic":"t","partition":0,"offset":4,"ack":"durable"}');
  const busy = () => refusal(503, 'shutting-down', { retryable: true }, { 'retry-after': '0' });
  const { topics, requests } = answered(new TypeError('reset'), busy(), stored());
  expect(await topics.produce('t', { value: 1 })).toMatchObject({ offset: 4 });
  expect(requests.map(({ method, body }) => [method, body])).toEqual(
    Array(3).fill(['POST', '{"value":1}']),
  );
  const keys = new Set(requests.map(({ headers }) => headers.get('idempotency-key')));
  expect([...keys]).toEqual([expect.stringMatching(/^"[0-9a-f]{32}"$/)]);
});

test('what is not safe to repeat is repeated only if it was refused with 429', async () => {
  const lost = answered(new TypeError('reset'), new Response(''));
  const error = await failure(lost.topics.delete('t'));
  expect(error).toBeInstanceOf(NetworkError);
  expect(error).toMatchObject({ code: 'network', retryable: true, status: 0 });
  expect(lost.requests.length).toBe(1);
  const full = () => refusal(429, 'too-many-bytes', { retryable: true }, { 'retry-after': '0' });
  const limited = answered(full(), full(), new Response(null, { status: 204 }));
  await limited.topics.delete('t');
  expect(limited.requests.length).toBe(3);
});

test('repeats end, and the last error is told', async () => {
  const full = () => refusal(429, 'too-many-bytes', { retryable: true }, { 'retry-after': '0' });
  const { topics, requests } = answered(...Array.from({ length: 9 }, full));
  const error = await failure(topics.get('t'));
  expect(error).toBeInstanceOf(RateLimitError);
  expect(error.retryAfterMs).toBe(0);
  expect(requests.length).toBe(5);
});

test('an answer that does not come in time is an error of the network', async () => {
  const fetch: typeof globalThis.fetch = (_, init) =>
    new Promise((_resolve, reject) => {
      init?.signal?.addEventListener('abort', () => reject(init.signal?.reason as Error));
    });
  const of = client({ fetch, timeoutMs: 10, maxRetries: 0 });
  const error = await failure(of.stream.topics.get('t'));
  expect(error).toBeInstanceOf(NetworkError);
  expect(error.code).toBe('timeout');
});

test('a signal ends a call with its own reason', async () => {
  const of = client();
  const name = await topic(of);
  const waiting = new AbortController();
  const consumed = of.stream.topics.consume(name, {
    group: fresh('g'),
    waitMs: 60_000,
    signal: waiting.signal,
  });
  waiting.abort(new Error('enough'));
  await expect(consumed).rejects.toThrow('enough');
  await expect(of.stream.topics.list({ signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
});

test('a client without key or project is refused at once', () => {
  expect(() => client({ apiKey: '' })).toThrow(ValidationError);
  expect(() => client({ projectId: '' })).toThrow(ValidationError);
});
