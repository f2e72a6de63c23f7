// Where a member of a group reads on. Pure: what moved, and what is processed, is worked out here.

import { type FencedError, isObject } from './errors.js';
import type { StreamRecord } from './records.js';

/** Where a group reads on in a partition that a member owns. */
export interface Place {
  topic: string;
  partition: number;
  /** Which ownership of the partition this is; a commit under an older one is refused. */
  generation: number;
  /** The offset to read next. */
  nextOffset: number;
}

/** A partition whose records were trimmed before the group read them. */
export interface Lost {
  topic: string;
  partition: number;
  /** Where the group had come to. */
  committed: number;
  /** The earliest offset that is left. */
  earliest: number;
  /** How many are gone. */
  records: number;
}

/** A place in the server's spelling. */
export function placeToWire(place: Place): Record<string, unknown> {
  const { nextOffset, ...rest } = place;
  return { ...rest, next_offset: nextOffset };
}

/** Whether two are of the same partition. */
export function isSamePartition(
  one: { topic: string; partition: number },
  other: { topic: string; partition: number },
): boolean {
  return one.topic === other.topic && one.partition === other.partition;
}

/** The places without those that the server says have moved; all are left if it names none. */
export function withoutMoved(places: readonly Place[], error: FencedError): Place[] {
  const current = error.details['current'];
  const moved = Array.isArray(current) ? current.filter(isObject) : [];
  return places.filter(
    ({ topic, partition }) =>
      !moved.some((place) => place['topic'] === topic && place['partition'] === partition),
  );
}

/**
 * What can be committed once the first `count` of a batch's records are processed: each partition
 * up to its first record that is not.
 */
export function placesAfter(
  records: readonly StreamRecord[],
  places: readonly Place[],
  count: number,
): Place[] {
  const done = records.slice(0, count);
  const open = records.slice(count);
  return places.flatMap((place) => {
    if (!done.some((record) => isSamePartition(record, place))) return [];
    const first = open.find((record) => isSamePartition(record, place));
    return [{ ...place, nextOffset: first?.offset ?? place.nextOffset }];
  });
}
