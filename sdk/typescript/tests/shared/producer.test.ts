import { expect, inject, test } from 'vitest';

import { FencedError, NotFoundError, ValidationError } from '../../src/index.js';
import { client, fresh, topic, upTo, values } from '../support/client.js';

/** A client that counts its publishes. */
function counting() {
  const counted = { publishes: 0 };
  const of = client({
    fetch: (url, init) => {
      if (String(url).includes('/events')) counted.publishes += 1;
      return fetch(url, init);
    },
  });
  return { of, counted };
}

test('events are sent in batches, in their order, and each is told its place', async () => {
  const { of, counted } = counting();
  const name = await topic(of);
  const producer = of.stream.producer({ topic: name, lingerMs: 1, batchMax: 100 });
  const sent = await Promise.all(upTo(250).map((value) => producer.send({ value })));
  expect(sent.map(({ partition, offset }) => [partition, offset])).toEqual(
    upTo(250).map((offset) => [0, offset]),
  );
  expect(counted.publishes).toBeLessThanOrEqual(4);
  const { records } = await of.stream.topics.consume(name, { group: 'g', limit: 1_000 });
  expect(values(records)).toEqual(upTo(250));
});

test('a producer sends to several topics', async () => {
  const of = client();
  const names = [await topic(of, 3), await topic(of)];
  const producer = of.stream.producer();
  const sent = names.flatMap((name) =>
    upTo(5).map((value) => producer.send(name, { key: `k${value}`, value })),
  );
  await producer.flush();
  const places = await Promise.all(sent);
  expect(places.map(({ topic }) => topic)).toEqual(names.flatMap((name) => Array(5).fill(name)));
  for (const name of names) {
    expect((await of.stream.topics.stats(name)).totalEvents).toBe(5);
  }
  await expect(producer.send({ value: 1 })).rejects.toThrow(ValidationError);
});

test('an event that is refused costs the others nothing, and takes no sequence', async () => {
  const of = client();
  const name = await topic(of);
  const put = await fetch(`${inject('baseUrl')}/projects/sdk/topics/${name}/schema`, {
    method: 'PUT',
    headers: {
      Authorization: `Bearer ${inject('apiKey')}`,
      'Content-Type': 'application/json',
    },
    body: '{"type":"number"}',
  });
  expect(put.ok).toBe(true);
  const producer = of.stream.producer({ topic: name });
  for (const round of [0, 1]) {
    const settled = await Promise.allSettled([
      producer.send({ value: 1 }),
      producer.send({ value: 'rejected by the schema' }),
      producer.send({ value: 2, partition: 9 }),
      producer.send({ value: 3 }),
    ]);
    const told = settled.map((result) =>
      result.status === 'fulfilled' ? result.value.offset : (result.reason as Error).constructor,
    );
    const offset = 2 * round;
    expect(told).toEqual([offset, ValidationError, ValidationError, offset + 1]);
  }
  await expect(producer.send('none', { value: 1 })).rejects.toThrow(NotFoundError);
  expect(await producer.send({ value: 4 })).toMatchObject({ offset: 4 });
});

test('a producer under the same id fences the former', async () => {
  const of = client();
  const name = await topic(of);
  const options = { topic: name, producerId: fresh('producer') };
  const former = of.stream.producer(options);
  await former.send({ value: 1 });
  await former.send({ value: 2 });
  const latter = of.stream.producer(options);
  expect(await latter.send({ value: 3 })).toMatchObject({ offset: 2 });
  await expect(former.send({ value: 4 })).rejects.toThrow(FencedError);
  await expect(former.send({ value: 5 })).rejects.toThrow(FencedError);
  expect((await of.stream.topics.stats(name)).totalEvents).toBe(3);
});

test('of two that took the same epoch, one is told that it stored nothing', async () => {
  let asked = 0;
  let bothAsked = (): void => undefined;
  const both = new Promise<void>((resolve) => (bothAsked = resolve));
  const of = client({
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (!String(url).includes('/producers/')) return answer;
      asked += 1;
      if (asked === 2) bothAsked();
      await both;
      return answer;
    },
  });
  const name = await topic(of);
  const options = { topic: name, producerId: fresh('producer') };
  const [one, other] = [of.stream.producer(options), of.stream.producer(options)];
  const settled = await Promise.allSettled([one.send({ value: 1 }), other.send({ value: 2 })]);
  const fenced = settled.filter(({ status }) => status === 'rejected');
  expect(fenced).toMatchObject([{ reason: { code: 'producer-shared' } }]);
  expect((await of.stream.topics.stats(name)).totalEvents).toBe(1);
});

test('closing sends what waits, and takes no more', async () => {
  const of = client();
  const name = await topic(of);
  const producer = of.stream.producer({ topic: name, lingerMs: 60_000 });
  const sent = producer.send({ value: 1 });
  await of.close();
  expect(await sent).toMatchObject({ offset: 0 });
  await expect(producer.send({ value: 2 })).rejects.toThrow('closed');
});
