import { expect, test } from 'vitest';

import { FencedError, type Fourbyfour, NotFoundError } from '../../src/index.js';
import { client, fresh, topic, upTo, values } from '../support/client.js';

async function all(of: Fourbyfour, name: string): Promise<unknown[]> {
  const options = { group: fresh('reader'), limit: 10_000, waitMs: 0 };
  return values((await of.stream.topics.consume(name, options)).records);
}

test('what is made of a batch is stored with its commit, once', async () => {
  const of = client();
  const [input, output] = [await topic(of), await topic(of)];
  await of.stream.topics.produceBatch(
    input,
    upTo(9).map((value) => ({ value })),
  );
  const consume = () =>
    of.stream.topics.consume<number>(input, {
      group: `double-${input}`,
      autoCommit: false,
      limit: 4,
      waitMs: 0,
    });
  for (let batch = await consume(); batch.records.length > 0; batch = await consume()) {
    const events = batch.records.map(({ value }) => ({ value: 2 * value }));
    const done = await batch.transaction([{ topic: output, events }]);
    expect(done).toMatchObject({ count: events.length, duplicate: false });
    expect(batch.isCommitted).toBe(true);
    await expect(batch.transaction([{ topic: output, events }])).rejects.toMatchObject({
      code: 'batch-committed',
    });
  }
  expect(await all(of, output)).toEqual(upTo(9).map((value) => 2 * value));
});

test('of two batches with the same records only the later can be made something of', async () => {
  const of = client();
  const [input, output] = [await topic(of), await topic(of)];
  await of.stream.topics.produce(input, { value: 1 });
  const options = { group: fresh('g'), autoCommit: false };
  const first = await of.stream.topics.consume(input, options);
  const again = await of.stream.topics.consume(input, options);
  const publish = [{ topic: output, events: [{ value: 2 }] }];
  await expect(first.transaction(publish)).rejects.toMatchObject({ code: 'batch-superseded' });
  await again.transaction(publish);
  expect(await all(of, output)).toEqual([2]);
});

test('a transaction of a batch that has moved stores nothing', async () => {
  const of = client();
  const [input, output] = [await topic(of), await topic(of)];
  await of.stream.topics.produce(input, { value: 1 });
  const group = fresh('g');
  const batch = await of.stream.topics.consume(input, { group, autoCommit: false });
  await of.stream.groups.delete(group, { force: true });
  const stale = batch.transaction([{ topic: output, events: [{ value: 2 }] }]);
  await expect(stale).rejects.toThrow(FencedError);
  expect(batch.isCommitted).toBe(false);
  expect(await all(of, output)).toEqual([]);
});

test('a transaction publishes to several topics, all or none', async () => {
  const of = client();
  const [one, other] = [await topic(of), await topic(of)];
  const publish = [
    { topic: one, events: [{ value: 1 }] },
    { topic: other, events: [{ value: 2 }, { value: 3 }] },
  ];
  const options = { idempotencyKey: fresh('key') };
  const done = await of.stream.transaction({ publish }, options);
  expect(done).toMatchObject({ count: 3, duplicate: false });
  const repeated = await of.stream.transaction({ publish }, options);
  expect(repeated).toEqual({ ...done, duplicate: true });
  const none = [...publish, { topic: 'none', events: [{ value: 4 }] }];
  await expect(of.stream.transaction({ publish: none })).rejects.toThrow(NotFoundError);
  expect([await all(of, one), await all(of, other)]).toEqual([[1], [2, 3]]);
});

test('offsets of a batch are committed by a transaction that publishes nothing', async () => {
  const of = client();
  const name = await topic(of);
  await of.stream.topics.produce(name, { value: 1 });
  const options = { group: fresh('g'), autoCommit: false, waitMs: 0 };
  const { offsets } = await of.stream.topics.consume(name, options);
  await of.stream.transaction({ offsets });
  expect((await of.stream.topics.consume(name, options)).records).toEqual([]);
});
