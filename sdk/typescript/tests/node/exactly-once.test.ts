import { expect, onTestFinished, test } from 'vitest';

import { FencedError, Fourbyfour, FourbyfourError } from '../../src/index.js';
import { client, topic, upTo } from '../support/client.js';
import { flakyProxy } from '../support/proxy.js';
import { KEY, Server } from '../support/server.js';

const PARTITIONS = 4;
const EVENTS = 400;

/** Copies batches in transactions until it is told to stop, or leaves by itself after `batchesMax`. */
async function work(
  of: Fourbyfour,
  [input, output]: readonly [string, string],
  batchesMax: number,
  isDone: () => boolean,
): Promise<void> {
  const options = { group: 'copy', autoCommit: false, limit: 5, waitMs: 50 };
  for (let batches = 0; batches < batchesMax && !isDone(); batches += 1) {
    try {
      const batch = await of.stream.topics.consume(input, options);
      if (batch.records.length === 0) continue;
      const events = batch.records.map(({ key, value }) => ({ key, value }));
      await batch.transaction([{ topic: output, events }]);
    } catch (error) {
      const mayPass = error instanceof FourbyfourError && error.retryable;
      if (!mayPass && !(error instanceof FencedError)) throw error;
    }
  }
}

test('a chain is exact over workers that come and go, lost answers and a killed server', async () => {
  let server = await Server.start();
  onTestFinished(() => server.stop());
  const lossy = await flakyProxy(server.url, (_, count) => count % 7 === 3);
  const direct = client({ baseUrl: server.url, apiKey: KEY });
  const [input, output] = [await topic(direct, PARTITIONS), await topic(direct, PARTITIONS)];
  const events = upTo(EVENTS).map((value) => ({ key: `k${value % 50}`, value }));
  await direct.stream.topics.produceBatch(input, events);

  const copied = async () => (await direct.stream.topics.stats(output)).totalEvents;
  let isDone = false;
  const worker = async (index: number): Promise<void> => {
    for (let life = 1; !isDone; life += 1) {
      const options = { apiKey: KEY, projectId: 'sdk', baseUrl: lossy.url };
      const of = new Fourbyfour(options);
      await work(of, [input, output], 3 + ((index + life) % 5), () => isDone);
      await of.close();
    }
  };
  const workers = upTo(3).map(worker);
  for (const share of [0.25, 0.5]) {
    await expect.poll(copied, { timeout: 15_000 }).toBeGreaterThanOrEqual(share * EVENTS);
    server = await server.restart();
  }
  await expect.poll(copied, { timeout: 15_000 }).toBeGreaterThanOrEqual(EVENTS);
  isDone = true;
  await Promise.all(workers);

  const read = { group: 'check', limit: 10_000, waitMs: 0 };
  const { records } = await direct.stream.topics.consume<number>(output, read);
  expect(records.map(({ value }) => value).toSorted((a, b) => a - b)).toEqual(upTo(EVENTS));
  for (const key of upTo(50).map((number) => `k${number}`)) {
    const ofKey = records.filter((record) => record.key === key).map(({ value }) => value);
    expect(ofKey).toEqual(ofKey.toSorted((a, b) => a - b));
  }
  expect(lossy.forwarded.some(({ isLost }) => isLost)).toBe(true);
});
