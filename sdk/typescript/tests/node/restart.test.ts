import { expect, inject, onTestFinished, test } from 'vitest';

import { client, topic, upTo, values } from '../support/client.js';
import { KEY, Server } from '../support/server.js';

/** A server of the test's own, which it may kill. */
async function ownServer() {
  let server = await Server.start();
  onTestFinished(() => server.stop());
  const options = { baseUrl: server.url, apiKey: KEY };
  return {
    of: client(options),
    restart: async () => {
      server = await server.restart();
    },
  };
}

test('a consumer goes on after the server was killed, and reads each record once', async () => {
  const { of, restart } = await ownServer();
  const name = await topic(of);
  await of.stream.topics.produceBatch(
    name,
    upTo(6).map((value) => ({ value })),
  );
  const consume = () => of.stream.topics.consume<number>(name, { group: 'g', limit: 2, waitMs: 0 });
  const seen: unknown[][] = [];
  for (const step of upTo(4)) {
    if (step === 2) await restart();
    seen.push(values((await consume()).records));
  }
  // Who owns what is stored: the batch from before is committed as if nothing had been.
  expect(seen).toEqual([[0, 1], [2, 3], [4, 5], []]);
});

test('a subscription and a producer outlive the server', async () => {
  const { of, restart } = await ownServer();
  const name = await topic(of);
  const producer = of.stream.producer({ topic: name });
  await producer.send({ value: 0 });
  const seen: unknown[] = [];
  for await (const { value } of of.stream.subscribe({ pattern: name, group: 'g' })) {
    seen.push(value);
    if (value === 2) break;
    if (value === 0) {
      const restarted = restart();
      const sent = [producer.send({ value: 1 }), producer.send({ value: 2 })];
      await Promise.all([restarted, ...sent]);
    }
  }
  expect(seen).toEqual([0, 1, 2]);
  expect((await of.stream.topics.stats(name)).totalEvents).toBe(3);
});

const isLive = inject('serverPaths').includes('/projects/{project}/subscribe');

test.runIf(isLive)(
  'a live subscription outlives the server, and reads each record once',
  async () => {
    const { of, restart } = await ownServer();
    const name = await topic(of, 3);
    const produce = (first: number) =>
      of.stream.topics.produceBatch(
        name,
        upTo(50).map((number) => ({ key: `k${number}`, value: first + number })),
      );
    await produce(0);
    const seen: number[] = [];
    for await (const { value } of of.stream.subscribe<number>({
      pattern: '**',
      from: 'earliest',
    })) {
      seen.push(value);
      if (seen.length === 25) {
        await restart();
        await produce(50);
      }
      if (seen.length === 100) break;
    }
    expect(seen.toSorted((a, b) => a - b)).toEqual(upTo(100));
  },
);
