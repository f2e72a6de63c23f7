// Clients for tests, in Node and in browsers.

import { inject, onTestFinished } from 'vitest';

import { Fourbyfour, type FourbyfourOptions, type StreamRecord } from '../../src/index.js';

let count = 0;

/** A name that no other test has. */
export function fresh(what: string): string {
  count += 1;
  return `${what}-${Math.random().toString(36).slice(2, 10)}-${count}`;
}

/** A client of the tests' server, closed at the test's end. */
export function client(options: Partial<FourbyfourOptions> = {}): Fourbyfour {
  const made = new Fourbyfour({
    apiKey: inject('apiKey'),
    projectId: 'sdk',
    baseUrl: inject('baseUrl'),
    ...options,
  });
  onTestFinished(() => made.close());
  return made;
}

/** A topic that no other test has. */
export async function topic(of: Fourbyfour, partitions = 1): Promise<string> {
  const { name } = await of.stream.topics.create({ name: fresh('topic'), partitions });
  return name;
}

/** The values of records. */
export function values(records: readonly StreamRecord[]): unknown[] {
  return records.map(({ value }) => value);
}

/** The numbers from 0 to below `count`. */
export function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, number) => number);
}
