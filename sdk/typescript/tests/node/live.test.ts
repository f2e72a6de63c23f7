import type { IncomingMessage, ServerResponse } from 'node:http';

import { expect, test } from 'vitest';

import { AuthError, type Fourbyfour, FourbyfourError, ServerError } from '../../src/index.js';
import type { LiveOptions } from '../../src/live.js';
import { client } from '../support/client.js';
import { serve } from '../support/proxy.js';

type Connection = (response: ServerResponse, request: IncomingMessage) => void;

const HELLO = 'retry: 1000\n: subscribed\n\n';

/** An event as the server sends it. */
function event(offset: number): string {
  const timestamp = '2026-01-02T03:04:05Z';
  const record = { topic: 't', partition: 0, offset, timestamp, value: offset };
  return `id: c${offset}\ndata: ${JSON.stringify(record)}\n\n`;
}

/** A client of a server that does one of these with each connection, in turn. */
async function connected(...connections: Connection[]) {
  const requests: { url: string; key?: string; last: unknown; accept?: string }[] = [];
  const url = await serve((request, response) => {
    const { authorization: key, accept, 'last-event-id': last } = request.headers;
    requests.push({ url: request.url ?? '', key, last, accept });
    const connection = connections.shift();
    if (connection === undefined) return void response.writeHead(418).end();
    connection(response, request);
  });
  return { of: client({ baseUrl: url, projectId: 'p' }), requests };
}

const sends =
  (...chunks: string[]): Connection =>
  (response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (const chunk of [HELLO, ...chunks]) response.write(chunk);
  };

/** The same, and then breaks the connection once it is all sent. */
const sendsAndBreaks =
  (...chunks: string[]): Connection =>
  (response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(HELLO + chunks.join(''), () => response.destroy());
  };

async function read(of: Fourbyfour, count: number, options: Partial<LiveOptions> = {}) {
  const seen: number[] = [];
  for await (const { offset } of of.stream.subscribe({ pattern: 'order.*', ...options })) {
    seen.push(offset);
    if (seen.length === count) break;
  }
  return seen;
}

test('records come however the stream is cut, with the key in a header', async () => {
  const { of, requests } = await connected(sends(...event(0), ': ping\n\n', ...event(1), event(2)));
  expect(await read(of, 3, { from: new Date(0) })).toEqual([0, 1, 2]);
  const url = '/projects/p/subscribe?pattern=order.*&from=1970-01-01T00%3A00%3A00.000Z';
  expect(requests).toEqual([
    {
      url,
      key: expect.stringMatching(/^Bearer sk_/),
      last: undefined,
      accept: 'text/event-stream',
    },
  ]);
});

test('a lost connection is resumed behind the last whole event', async () => {
  const { of, requests } = await connected(
    sendsAndBreaks(event(0), event(1), event(2).slice(0, -1)),
    (response) => response.writeHead(503).end('{}'),
    (_, request) => request.socket.destroy(),
    sendsAndBreaks('id: c1b\n\n'),
    sends(event(2)),
  );
  expect(await read(of, 3)).toEqual([0, 1, 2]);
  expect(requests.map(({ last }) => last)).toEqual([undefined, 'c1', 'c1', 'c1', 'c1b']);
});

test('a stream that the server ends is gone on with', async () => {
  const { of, requests } = await connected(
    (response) => response.writeHead(200).end(event(0)),
    sends(event(1)),
  );
  expect(await read(of, 2)).toEqual([0, 1]);
  expect(requests[1]?.last).toBe('c0');
});

test('a silent connection is taken for lost', async () => {
  const { of, requests } = await connected(sends(event(0)), sends(event(1)));
  expect(await read(of, 2, { silenceTimeoutMs: 100 })).toEqual([0, 1]);
  expect(requests[1]?.last).toBe('c0');
});

test('an error in the stream ends it, unless it may pass', async () => {
  const failing = (code: string, retryable: boolean): string =>
    `event: error\ndata: ${JSON.stringify({ error: { code, message: 'no', retryable } })}\n\n`;
  const { of, requests } = await connected(
    sends(event(0), failing('too-many-bytes', true)),
    sends(event(1), failing('invalid-key', false)),
  );
  const seen: number[] = [];
  const reading = async (): Promise<void> => {
    for await (const { offset } of of.stream.subscribe({ pattern: '**' })) seen.push(offset);
  };
  const error: unknown = await reading().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(AuthError);
  expect(error).toMatchObject({ code: 'invalid-key', message: 'no', retryable: false });
  expect(seen).toEqual([0, 1]);
  expect(requests[1]?.last).toBe('c0');
});

test('what cannot be connected to is told, at once or after some tries', async () => {
  const refuses: Connection = (response) => response.writeHead(503).end('{}');
  const { of, requests } = await connected(...Array<Connection>(5).fill(refuses));
  await expect(read(of, 1)).rejects.toThrow(ServerError);
  expect(requests.length).toBe(5);
  await expect(read(of, 1)).rejects.toThrow(FourbyfourError);
  expect(requests.length).toBe(6);
});

test('the number of reconnects can be bounded', async () => {
  const { of, requests } = await connected(
    sendsAndBreaks(event(0)),
    sendsAndBreaks(),
    sendsAndBreaks(),
  );
  await expect(read(of, 2, { maxReconnects: 2 })).rejects.toMatchObject({ code: 'network' });
  expect(requests.length).toBe(3);
});

test('the connection is closed when the loop, its signal or its client ends it', async () => {
  const closed: Promise<void>[] = [];
  const watched: Connection = (response, request) => {
    closed.push(new Promise((resolve) => request.socket.once('close', () => resolve())));
    sends(event(0))(response, request);
  };
  const { of } = await connected(watched, watched, watched);
  await read(of, 1);
  const controller = new AbortController();
  const aborted = async (): Promise<void> => {
    const subscription = of.stream.subscribe({ pattern: 't', signal: controller.signal });
    for await (const _ of subscription) setTimeout(() => controller.abort(new Error('enough')));
  };
  await expect(aborted()).rejects.toThrow('enough');
  for await (const _ of of.stream.subscribe({ pattern: 't' })) setTimeout(() => void of.close());
  await Promise.all(closed);
  expect(closed.length).toBe(3);
});
