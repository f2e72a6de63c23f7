import { expect, test } from 'vitest';

import { FencedError, type StreamRecord } from '../../src/index.js';
import { type Entry, Outbox } from '../../src/outbox.js';
import { placesAfter, withoutMoved } from '../../src/places.js';
import { backoffMs, retryAfterMs } from '../../src/time.js';
import { upTo } from '../support/client.js';

test('waits double up to a bound, and are never shorter than the server asks for', () => {
  const backoff = { baseMs: 100, maxMs: 1_000 };
  const longest = upTo(6).map((attempt) => backoffMs(backoff, attempt, 0, () => 1));
  expect(longest).toEqual([100, 200, 400, 800, 1_000, 1_000]);
  const shortest = upTo(6).map((attempt) => backoffMs(backoff, attempt, 0, () => 0));
  expect(shortest).toEqual([50, 100, 200, 400, 500, 500]);
  expect(backoffMs(backoff, 0, 3_000)).toBe(3_000);
});

test('retry-after is read as seconds or as a date', () => {
  const now = Date.parse('2026-01-02T03:04:05Z');
  const cases: [string | null, number | undefined][] = [
    ['2', 2_000],
    ['0', 0],
    ['Fri, 02 Jan 2026 03:04:09 GMT', 4_000],
    ['Fri, 02 Jan 2026 03:04:00 GMT', 0],
    ['soon', undefined],
    ['', undefined],
    [null, undefined],
  ];
  for (const [header, ms] of cases) expect(retryAfterMs(header, now), String(header)).toBe(ms);
});

test('what is processed of a batch is committed up to the first record that is not', () => {
  const record = (topic: string, partition: number, offset: number) =>
    ({ topic, partition, offset }) as StreamRecord;
  const records = [record('a', 0, 5), record('a', 0, 6), record('a', 1, 0), record('b', 0, 3)];
  const place = (topic: string, partition: number, nextOffset: number) => ({
    topic,
    partition,
    generation: 1,
    nextOffset,
  });
  const next = [place('a', 0, 9), place('a', 1, 1), place('b', 0, 4)];
  const after = upTo(5).map((count) => placesAfter(records, next, count));
  expect(after).toEqual([
    [],
    [place('a', 0, 6)],
    [place('a', 0, 9)],
    [place('a', 0, 9), place('a', 1, 1)],
    next,
  ]);
});

test('what has moved is left out of a commit', () => {
  const place = (partition: number) => ({ topic: 't', partition, generation: 1, nextOffset: 1 });
  const error = new FencedError({
    status: 409,
    code: 'stale-generation',
    message: '',
    retryable: false,
    details: { current: [{ topic: 't', partition: 1, owned: false }] },
  });
  expect(withoutMoved([place(0), place(1), place(2)], error)).toEqual([place(0), place(2)]);
});

test('batches keep the order of a topic and their limits, and topics take turns', () => {
  const outbox = new Outbox({ eventsMax: 3, bytesMax: 10 });
  const entry = (json: string) => ({ json, bytes: new TextEncoder().encode(json).length }) as Entry;
  for (const json of ['1', '2', '3', '4']) outbox.add('a', entry(json));
  for (const json of ['"12345678901234"', '5', '"äääää"']) outbox.add('b', entry(json));
  expect([outbox.isFull('a'), outbox.isFull('b'), outbox.isFull('c')]).toEqual([true, true, false]);
  const taken = [];
  for (let batch = outbox.take(); batch !== undefined; batch = outbox.take()) {
    taken.push([batch.topic, batch.entries.map(({ json }) => json)]);
  }
  expect(taken).toEqual([
    ['a', ['1', '2', '3']],
    ['b', ['"12345678901234"']],
    ['a', ['4']],
    ['b', ['5']],
    ['b', ['"äääää"']],
  ]);
});
