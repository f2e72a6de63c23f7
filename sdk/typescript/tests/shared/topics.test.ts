import { expect, test } from 'vitest';

import { NotFoundError } from '../../src/index.js';
import { client, fresh, topic, upTo, values } from '../support/client.js';

test('a topic is made, described, listed, changed and deleted', async () => {
  const { topics } = client().stream;
  const name = fresh('described');
  const made = await topics.create({ name, partitions: 2, retentionHours: 1 });
  expect(made).toMatchObject({ name, partitions: 2, retentionHours: 1, retentionBytes: null });
  expect(await topics.create({ name, partitions: 2, retentionHours: 1 })).toEqual(made);
  expect(await topics.get(name)).toEqual(made);
  expect((await topics.list()).topics).toContainEqual(made);
  expect(await topics.update(name, { description: 'orders' })).toMatchObject({
    description: 'orders',
  });
  await topics.delete(name);
  await expect(topics.get(name)).rejects.toThrow(NotFoundError);
});

test('lists come in pages', async () => {
  const of = client({ projectId: fresh('pages') });
  for (const name of ['a', 'b', 'c']) await of.stream.topics.create({ name });
  const first = await of.stream.topics.list({ limit: 2 });
  const second = await of.stream.topics.list({ limit: 2, after: first.next });
  expect([first, second].map(({ topics }) => topics.length)).toEqual([2, 1]);
  expect(second.next).toBeUndefined();
});

test('what is published has a place, and is read as it was published', async () => {
  const of = client();
  const { topics } = of.stream;
  const name = await topic(of);
  const event = {
    key: 'k',
    value: { snake_case: [1, { two_words: 'ä' }] },
    headers: { 'x-header_a': 'b' },
    id: 'id-1',
    time: new Date(0),
    type: 'made',
  };
  expect(await topics.produce(name, event)).toMatchObject({ topic: name, partition: 0, offset: 0 });
  const many = await topics.produceBatch(name, [{ value: null }, { value: 'text' }]);
  const places = [{ partition: 0, firstOffset: 1, lastOffset: 2 }];
  expect(many).toMatchObject({ count: 2, duplicate: false, partitions: places });
  const { records } = await topics.consume(name, { group: fresh('group') });
  expect(records[0]).toMatchObject({ key: 'k', value: event.value, id: 'id-1', offset: 0 });
  expect(records[0]?.headers).toMatchObject({ 'x-header_a': 'b', 'ce-type': 'made' });
  expect(Date.parse(records[0]?.time ?? '')).toBe(0);
  expect(records[1]).toMatchObject({ key: null, headers: {}, value: null });
  expect(await topics.stats(name)).toMatchObject({ name, totalEvents: 3 });
});

test('a repeat under the same idempotency key stores nothing', async () => {
  const of = client();
  const name = await topic(of);
  const publish = () =>
    of.stream.topics.produce(name, { value: 1 }, { idempotencyKey: 'a "quoted\\" key' });
  const [first, second] = [await publish(), await publish()];
  expect(second).toEqual({ ...first, duplicate: true });
  expect((await of.stream.topics.stats(name)).totalEvents).toBe(1);
});

test('consume gives each record once across calls', async () => {
  const of = client();
  const name = await topic(of, 3);
  const events = upTo(30).map((value) => ({ key: `k${value}`, value }));
  await of.stream.topics.produceBatch(name, events);
  const seen: unknown[] = [];
  while (seen.length < 30) {
    const { records } = await of.stream.topics.consume(name, { group: 'once', limit: 7 });
    seen.push(...values(records));
  }
  expect(seen.toSorted((a, b) => Number(a) - Number(b))).toEqual(upTo(30));
  const { records } = await of.stream.topics.consume(name, { group: 'once', waitMs: 0 });
  expect(records).toEqual([]);
});
