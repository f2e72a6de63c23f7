import { expect, inject, test } from 'vitest';

import { NetworkError } from '../../src/index.js';
import { client, fresh, topic, upTo, values } from '../support/client.js';
import { flakyProxy } from '../support/proxy.js';

/** A client whose every other publish or transaction gets no answer. */
async function unlucky() {
  let count = 0;
  const { url, forwarded } = await flakyProxy(inject('baseUrl'), (path) => {
    if (!/\/(events|produce|transactions)$/.test(path)) return false;
    count += 1;
    return count % 2 === 1;
  });
  return { of: client({ baseUrl: url }), lost: () => forwarded.filter(({ isLost }) => isLost) };
}

test('a batch whose answer is lost is stored once, and told its place', async () => {
  const { of, lost } = await unlucky();
  const name = await topic(of);
  const producer = of.stream.producer({ topic: name, batchMax: 10 });
  const sent = await Promise.all(upTo(30).map((value) => producer.send({ value })));
  expect(sent.map(({ offset }) => offset)).toEqual(upTo(30));
  expect(sent.every(({ batch }) => batch.duplicate)).toBe(true);
  expect(lost().map(({ status }) => status)).toEqual([200, 200, 200]);
  const { records } = await of.stream.topics.consume(name, { group: 'g' });
  expect(values(records)).toEqual(upTo(30));
});

test('an event whose answer is lost is stored once', async () => {
  const { of, lost } = await unlucky();
  const name = await topic(of);
  const one = await of.stream.topics.produce(name, { value: 0 });
  const many = await of.stream.topics.produceBatch(name, [{ value: 1 }, { value: 2 }]);
  expect([one, many]).toMatchObject([{ offset: 0, duplicate: true }, { duplicate: true }]);
  expect(lost().length).toBe(2);
  expect((await of.stream.topics.stats(name)).totalEvents).toBe(3);
});

test('a transaction whose answer is lost is done once', async () => {
  const { of, lost } = await unlucky();
  const [input, output] = [await topic(of), await topic(of)];
  await of.stream.topics.produceBatch(input, [{ value: 1 }, { value: 2 }]);
  const options = { group: fresh('g'), autoCommit: false, waitMs: 0 };
  const batch = await of.stream.topics.consume<number>(input, options);
  const events = batch.records.map(({ value }) => ({ value: 10 * value }));
  expect(await batch.transaction([{ topic: output, events }])).toMatchObject({ duplicate: true });
  expect(lost().length).toBe(2);
  expect((await of.stream.topics.consume(input, options)).records).toEqual([]);
  const made = await of.stream.topics.consume(output, { group: options.group });
  expect(values(made.records)).toEqual([10, 20]);
});

test('a batch that is given up fails, and the producer goes on in another epoch', async () => {
  let isDown = true;
  const { url } = await flakyProxy(inject('baseUrl'), () => isDown);
  const of = client({ baseUrl: url });
  const direct = client();
  const name = await topic(direct);
  const producer = of.stream.producer({ topic: name, maxRetries: 1 });
  await expect(producer.send({ value: 'unknown' })).rejects.toThrow(NetworkError);
  isDown = false;
  expect(await producer.send({ value: 'known' })).toMatchObject({ offset: 1 });
  const { records } = await direct.stream.topics.consume(name, { group: 'g' });
  expect(values(records)).toEqual(['unknown', 'known']);
});
