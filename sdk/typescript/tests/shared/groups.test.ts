import { expect, test } from 'vitest';

import { ConflictError, FencedError, type Fourbyfour } from '../../src/index.js';
import { client, fresh, topic, upTo, values } from '../support/client.js';

/** A topic with the events 0 … `count - 1` spread over its partitions. */
async function filled(of: Fourbyfour, partitions: number, count: number): Promise<string> {
  const name = await topic(of, partitions);
  await fill(of, name, count, partitions);
  return name;
}

function fill(of: Fourbyfour, name: string, count: number, partitions = 1) {
  const events = upTo(count).map((value) => ({ value, partition: value % partitions }));
  return of.stream.topics.produceBatch(name, events);
}

const byNumber = (a: unknown, b: unknown): number => Number(a) - Number(b);

test('without auto commit a batch comes again until it is committed', async () => {
  const of = client();
  const { topics } = of.stream;
  const name = await filled(of, 1, 3);
  const options = { group: fresh('g'), autoCommit: false, limit: 2, waitMs: 0 };
  const first = await topics.consume<number>(name, options);
  const again = await topics.consume<number>(name, options);
  expect([first, again].map(({ records }) => values(records))).toEqual([
    [0, 1],
    [0, 1],
  ]);
  expect(again.isCommitted).toBe(false);
  await again.commit();
  await again.commit();
  expect(again.isCommitted).toBe(true);
  expect(values((await topics.consume(name, options)).records)).toEqual([2]);
  await topics.commit(name, { group: options.group });
  expect((await topics.consume(name, options)).records).toEqual([]);
  await topics.commit(name, { group: fresh('never-consumed') });
});

test('a record that cannot be processed comes again, and then is a dead letter', async () => {
  const of = client();
  const { topics, groups } = of.stream;
  const name = await filled(of, 2, 8);
  const options = { group: fresh('g'), autoCommit: false, waitMs: 0 };
  expect(await groups.set(options.group, { attemptsMax: 2 })).toMatchObject({ attemptsMax: 2 });
  const first = await topics.consume<number>(name, options);
  const isOf = (value: number) => (record: { value: number }) => record.value === value;
  const poison = first.records.find(isOf(2));
  if (poison === undefined) throw new Error('it is not read');
  const reason = 'no '.repeat(1_000);
  const held = await first.nack(poison, { delayMs: 60_000, reason });
  expect(held).toMatchObject({ attempts: 1, attemptsMax: 2, deadLettered: false, nextOffset: 1 });
  expect(first.records.filter((record) => first.holds(record)).map(({ value }) => value)).toEqual([
    1, 3, 5, 7,
  ]);
  await expect(first.nack(poison)).rejects.toThrow(ConflictError);
  const { partitions } = await groups.get(options.group);
  const [stuck] = partitions.filter(({ failed }) => failed !== undefined);
  expect(stuck?.why?.code).toBe('held');
  expect(stuck?.failed).toMatchObject({ offset: 1, attempts: 1, heldUntil: held.heldUntil });
  // The rest of the batch is committed, the partition that is held is not.
  await first.commit();
  expect((await topics.consume(name, options)).records).toEqual([]);
  await groups.reset(options.group, { topic: name, partition: 0, offset: 1, force: true });
  const again = await topics.consume<number>(name, options);
  expect(values(again.records)).toEqual([2, 4, 6]);
  expect(again.records[0]?.attempt).toBeUndefined();
  const [once] = again.records;
  if (once === undefined) throw new Error('it is not read');
  expect(await again.nack(once, { delayMs: 0 })).toMatchObject({ attempts: 1, heldUntil: null });
  expect(again.isCommitted).toBe(true);
  const last = await topics.consume<number>(name, options);
  const [twice] = last.records;
  expect(twice).toMatchObject({ value: 2, attempt: 2 });
  if (twice === undefined) throw new Error('it is not read');
  expect(await last.nack(twice)).toMatchObject({ deadLettered: true, nextOffset: 2 });
  const behind = await topics.consume<number>(name, options);
  expect(values(behind.records)).toEqual([4, 6]);
  await behind.commit();
  await expect(behind.nack(behind.records[0] ?? twice)).rejects.toThrow('committed already');
});

test('a client that is closed leaves its groups, and what it had read last comes again', async () => {
  const [one, other] = [client(), client()];
  const name = await filled(one, 2, 4);
  const group = fresh('g');
  expect((await one.stream.topics.consume(name, { group })).records.length).toBe(4);
  await one.close();
  expect((await other.stream.groups.get(group)).members).toEqual([]);
  const { records } = await other.stream.topics.consume(name, { group, waitMs: 0 });
  expect(values(records).toSorted(byNumber)).toEqual([0, 1, 2, 3]);
  await expect(one.stream.topics.consume(name, { group })).rejects.toThrow('closed');
});

test('two clients of a group share the partitions, and read each record once', async () => {
  const clients = [client(), client()];
  const [one] = clients as [Fourbyfour, Fourbyfour];
  const name = await filled(one, 4, 40);
  const group = fresh('g');
  const seen: number[][] = [[], []];
  const total = (): number => seen.flat().length;
  const read = async (count: number) => {
    const loops = clients.map(async (of, index) => {
      while (total() < count) {
        const batch = await of.stream.topics.consume<number>(name, { group, limit: 5, waitMs: 50 });
        seen[index]?.push(...batch.records.map(({ value }) => value));
      }
    });
    await Promise.all(loops);
  };
  await read(40);
  expect(seen.flat().toSorted(byNumber)).toEqual(upTo(40));
  const owned = async () => {
    for (const of of clients) await of.stream.topics.consume(name, { group, waitMs: 0 });
    return (await one.stream.groups.get(group)).members.map((member) => member.assignment.length);
  };
  await expect.poll(owned).toEqual([2, 2]);
  const before = seen.map(({ length }) => length);
  await fill(one, name, 40, 4);
  await read(80);
  expect(seen.map(({ length }, index) => length - (before[index] ?? 0))).toEqual([20, 20]);
});

test('a member that the server has forgotten joins again', async () => {
  const of = client();
  const name = await filled(of, 1, 2);
  const group = fresh('g');
  const first = await of.stream.topics.consume(name, { group });
  await of.stream.groups.delete(group, { force: true });
  await expect(first.commit()).rejects.toThrow(FencedError);
  const again = await of.stream.topics.consume(name, { group });
  expect(again.records).toEqual(first.records);
  expect(again.offsets.member).not.toBe(first.offsets.member);
  await again.commit();
  expect((await of.stream.topics.consume(name, { group, waitMs: 0 })).records).toEqual([]);
});

test('a commit leaves out what has moved, and commits the rest', async () => {
  const of = client();
  const name = await filled(of, 2, 4);
  const group = fresh('g');
  await of.stream.topics.consume(name, { group });
  await of.stream.groups.reset(group, { topic: name, partition: 0, offset: 1, force: true });
  const again = await of.stream.topics.consume(name, { group });
  expect(again.records).toMatchObject([{ partition: 0, offset: 1 }]);
});

test('heartbeats keep a member for longer than its session', async () => {
  let heartbeats = 0;
  const of = client({
    fetch: (url, init) => {
      if (String(url).endsWith('/heartbeat')) heartbeats += 1;
      return fetch(url, init);
    },
  });
  const name = await filled(of, 1, 1);
  const batch = await of.stream.topics.consume(name, { group: fresh('g'), sessionTimeoutMs: 500 });
  await expect.poll(() => heartbeats, { timeout: 5_000 }).toBeGreaterThan(3);
  await batch.commit();
});

test('a silent member expires, and joins again', async () => {
  const of = client({
    maxRetries: 0,
    fetch: (url, init) =>
      String(url).endsWith('/heartbeat') ? Promise.reject(new TypeError('cut')) : fetch(url, init),
  });
  const name = await filled(of, 1, 1);
  const group = fresh('g');
  const consume = () => of.stream.topics.consume(name, { group, sessionTimeoutMs: 500, waitMs: 0 });
  const first = await consume();
  const members = () =>
    of.stream.groups.get(group).then(
      (told) => told.members.length,
      () => 0,
    );
  await expect.poll(members, { timeout: 5_000 }).toBe(0);
  const again = await consume();
  expect(again.records).toEqual(first.records);
  expect(again.offsets.member).not.toBe(first.offsets.member);
});

test('who does not consume for long leaves the group', async () => {
  const of = client();
  const name = await filled(of, 1, 1);
  const group = fresh('g');
  const batch = await of.stream.topics.consume(name, {
    group,
    sessionTimeoutMs: 500,
    idleTimeoutMs: 1,
  });
  await expect
    .poll(() => batch.commit().then(String, ({ code }) => code as string), { timeout: 5_000 })
    .toBe('undefined');
  await expect
    .poll(async () => (await of.stream.groups.get(group)).members, { timeout: 5_000 })
    .toEqual([]);
});

test('records whose answer was lost are let go of when others join', async () => {
  let isCut = true;
  const one = client({
    maxRetries: 0,
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (isCut && String(url).includes('/records')) throw new TypeError('cut');
      return answer;
    },
  });
  const other = client();
  const name = await filled(one, 2, 2);
  const group = fresh('g');
  const cut = one.stream.topics.consume(name, { group, sessionTimeoutMs: 1_500 });
  await expect(cut).rejects.toThrow('cut');
  isCut = false;
  const { records } = await other.stream.topics.consume(name, { group, waitMs: 15_000 });
  expect(records.length).toBe(1);
});

test('who comes back under its instance id fences its former self, which stays away', async () => {
  const [former, latter] = [client(), client()];
  const name = await filled(former, 1, 2);
  const options = { group: fresh('g'), instanceId: 'one', limit: 1, waitMs: 0 };
  await former.stream.topics.consume(name, options);
  const batch = await latter.stream.topics.consume(name, options);
  for (const _ of upTo(2)) {
    await expect(former.stream.topics.consume(name, options)).rejects.toThrow(FencedError);
  }
  await batch.commit();
  expect(values((await latter.stream.topics.consume(name, options)).records)).toEqual([1]);
});

test('a member that gets no answer when it joins is one member all the same', async () => {
  let joins = 0;
  const of = client({
    fetch: async (url, init) => {
      const answer = await fetch(url, init);
      if (!String(url).endsWith('/members')) return answer;
      joins += 1;
      if (joins === 1) throw new TypeError('cut');
      return answer;
    },
  });
  const name = await filled(of, 2, 4);
  const group = fresh('g');
  const { records } = await of.stream.topics.consume(name, { group, waitMs: 0 });
  expect([records.length, joins]).toEqual([4, 2]);
  expect((await of.stream.groups.get(group)).members.length).toBe(1);
});

test('groups are listed, described, reset and deleted', async () => {
  const of = client({ projectId: fresh('groups') });
  const { topics, groups } = of.stream;
  const name = await filled(of, 1, 5);
  const batch = await topics.consume(name, { group: 'g', limit: 2, instanceId: 'one' });
  await batch.commit();
  const told = await groups.get('g');
  expect(told).toMatchObject({ group: 'g', lag: 3, members: [{ instanceId: 'one' }] });
  expect(told.partitions).toMatchObject([{ topic: name, committed: 2, logEnd: 5, lag: 3 }]);
  expect(await groups.list()).toEqual({ groups: [{ group: 'g', members: 1 }] });
  const reset = { topic: name, to: 'earliest' } as const;
  await expect(groups.reset('g', reset)).rejects.toThrow(ConflictError);
  expect(await groups.reset('g', { ...reset, force: true })).toMatchObject({
    partitions: [{ partition: 0, nextOffset: 0 }],
  });
  const time = { topic: name, timestamp: new Date(0), force: true };
  expect((await groups.reset('g', time)).partitions).toEqual([{ partition: 0, nextOffset: 0 }]);
  expect((await topics.consume(name, { group: 'g' })).records.length).toBe(5);
  await expect(groups.delete('g')).rejects.toThrow(ConflictError);
  await groups.delete('g', { force: true });
  expect(await groups.list()).toEqual({ groups: [] });
});
