import { expect, inject, test } from 'vitest';

import { AuthError, type Fourbyfour, ValidationError } from '../../src/index.js';
import { client, fresh, upTo } from '../support/client.js';

async function publish(of: Fourbyfour, topic: string, ...numbers: number[]): Promise<void> {
  await of.stream.topics.create({ name: topic });
  await of.stream.topics.produceBatch(
    topic,
    numbers.map((value) => ({ value })),
  );
}

test('a group reads what its pattern matches, also topics that come later', async () => {
  const of = client();
  const root = fresh('order');
  await publish(of, `${root}.placed`, 0, 1);
  const seen: string[] = [];
  for await (const record of of.stream.subscribe({ pattern: `${root}.*`, group: fresh('g') })) {
    seen.push(`${record.topic.slice(root.length)} ${String(record.value)}`);
    if (seen.length === 2) await publish(of, `${root}.paid`, 2, 3);
    if (seen.length === 4) break;
  }
  expect(seen).toEqual(['.placed 0', '.placed 1', '.paid 2', '.paid 3']);
});

test('a group waits for a topic to be made', async () => {
  const of = client();
  const topic = fresh('later');
  const group = fresh('g');
  const first = of.stream.subscribe({ pattern: topic, group }).next();
  await expect.poll(() => of.stream.groups.get(group).catch(() => undefined)).toBeDefined();
  await publish(of, topic, 1);
  expect(await first).toMatchObject({ value: { topic, value: 1 } });
});

test('a loop that ends has committed what was wholly processed, and left', async () => {
  const of = client();
  const topic = fresh('loop');
  await publish(of, topic, ...upTo(10));
  const options = { pattern: topic, group: fresh('g'), limit: 4 };
  const read = async (count: number): Promise<number[]> => {
    const seen: number[] = [];
    for await (const { value } of of.stream.subscribe<number>(options)) {
      seen.push(value);
      if (seen.length === count) break;
    }
    return seen;
  };
  expect(await read(3)).toEqual([0, 1, 2]);
  // The one at which the loop ended was not wholly processed.
  expect(await read(6)).toEqual([2, 3, 4, 5, 6, 7]);
  const told = await of.stream.groups.get(options.group);
  expect(told).toMatchObject({ members: [], partitions: [{ committed: 7 }] });
  const failing = async (): Promise<void> => {
    for await (const { value } of of.stream.subscribe<number>(options)) {
      if (value === 9) throw new Error('cannot be processed');
    }
  };
  await expect(failing()).rejects.toThrow('cannot be processed');
  expect(await of.stream.groups.get(options.group)).toMatchObject({
    partitions: [{ committed: 9 }],
  });
});

test('a subscription ends with its signal, and with its client', async () => {
  const of = client();
  const topic = fresh('ends');
  await publish(of, topic, 1);
  const controller = new AbortController();
  const { signal } = controller;
  const aborted = async (): Promise<void> => {
    for await (const _ of of.stream.subscribe({ pattern: topic, group: 'aborted', signal })) {
      setTimeout(() => controller.abort(new Error('enough')));
    }
  };
  await expect(aborted()).rejects.toThrow('enough');
  expect(await of.stream.groups.get('aborted')).toMatchObject({ members: [] });
  let count = 0;
  for await (const _ of of.stream.subscribe({ pattern: topic, group: 'closed' })) {
    count += 1;
    setTimeout(() => void of.close());
  }
  expect(count).toBe(1);
});

test('records that were trimmed unread are never skipped in silence', async () => {
  const of = client();
  const topic = fresh('trimmed');
  await publish(of, topic, 0, 1, 2);
  const group = fresh('g');
  const consume = () => of.stream.topics.consume(topic, { group, waitMs: 0, limit: 1 });
  await (await consume()).commit();
  const trimmed = await fetch(
    `${inject('baseUrl')}/projects/sdk/topics/${topic}/partitions/0/records?before=2`,
    { method: 'DELETE', headers: { Authorization: `Bearer ${inject('apiKey')}` } },
  );
  expect(trimmed.ok).toBe(true);
  const lost = { topic, partition: 0, committed: 1, earliest: 2, records: 1 };
  expect(await consume()).toMatchObject({ records: [], lost: [lost] });
  await of.close();
  const other = client();
  const read = async (onLost?: (lost: unknown) => void): Promise<unknown> => {
    const subscription = other.stream.subscribe({ pattern: topic, group, onLost, waitMs: 100 });
    for await (const { value } of subscription) return value;
    return undefined;
  };
  await expect(read()).rejects.toMatchObject({ code: 'records-lost', details: { lost: [lost] } });
  const reset = { topic, to: 'earliest', force: true } as const;
  expect(await read(() => void other.stream.groups.reset(group, reset))).toBe(2);
});

const isLive = inject('serverPaths').includes('/projects/{project}/subscribe');

test.runIf(isLive)('a live subscription reads from the earliest on, then what comes', async () => {
  const of = client();
  const root = fresh('live');
  await publish(of, `${root}.a`, 0, 1);
  const seen: unknown[] = [];
  for await (const record of of.stream.subscribe({ pattern: `${root}.**`, from: 'earliest' })) {
    seen.push(record.value);
    if (seen.length === 2) await publish(of, `${root}.b`, 2, 3);
    if (seen.length === 4) break;
  }
  expect(seen).toEqual([0, 1, 2, 3]);
});

test.runIf(isLive)(
  'a live subscription reads from the latest on what its pattern matches',
  async () => {
    const of = client();
    const root = fresh('latest');
    await publish(of, `${root}.a`, 0);
    const onConnected = async (): Promise<void> => {
      await publish(of, `${root}.a.b`, 1);
      await publish(of, `${root}.a`, 2);
    };
    const pattern = `${root}.*`;
    for await (const { value } of of.stream.subscribe({
      pattern,
      onConnected: () => void onConnected(),
    })) {
      expect(value).toBe(2);
      break;
    }
  },
);

test.runIf(isLive)('a live subscription begins at a time', async () => {
  const of = client();
  const topic = fresh('time');
  await publish(of, topic, 0);
  const { timestamp } = await of.stream.topics.produce(topic, { value: 1 });
  const from = new Date(Date.parse(timestamp ?? ''));
  for await (const { value } of of.stream.subscribe({ pattern: topic, from })) {
    expect([0, 1]).toContain(value);
    if (value === 1) break;
  }
});

test.runIf(isLive)('a live subscription that is refused says why', async () => {
  const of = client();
  const read = async (reader: Fourbyfour, pattern: string): Promise<void> => {
    for await (const _ of reader.stream.subscribe({ pattern })) break;
  };
  await expect(read(of, 'a.b*')).rejects.toThrow(ValidationError);
  const stranger = client({ apiKey: 'sk_wrong-key-wrong' });
  await expect(read(stranger, '**')).rejects.toThrow(AuthError);
});
