// `client.stream.groups`.

import { fromWire, toWire } from './records.js';
import type { PageOptions } from './topics.js';
import { type CallOptions, path, type Transport } from './transport.js';

/** A member as its group tells of it. */
export interface GroupMember {
  member: string;
  instanceId?: string;
  subscriptions: string[];
  assignment: {
    topic: string;
    partition: number;
    generation: number;
    nextOffset: number;
    revoking?: boolean;
    /** There while nothing of it is read, since a record could not be processed; RFC 3339. */
    heldUntil?: string;
  }[];
  /** RFC 3339. */
  joinedAt: string;
  /** For how long nothing was heard of it, in milliseconds. */
  silentMs: number;
  heartbeatMs: number;
  sessionTimeoutMs: number;
}

/** How a group stands in one partition. */
export interface GroupPartition {
  topic: string;
  partition: number;
  /** The offset that is read next; `null` if nothing was committed. */
  committed: number | null;
  committedAt?: string | null;
  logStart: number;
  logEnd: number;
  /** The member that owns it. */
  owner: string | null;
  generation: number;
  /** In records. */
  lag: number;
  /** For how long the earliest unread record has waited. */
  lagSeconds: number;
  /** How many records were trimmed unread. */
  lost?: number;
  /** There until the group has moved past a record that could not be processed. */
  failed?: {
    offset: number;
    attempts: number;
    deadLettered: boolean;
    reason: string | null;
    /** Until when nothing of the partition is read; RFC 3339, `null` if it is. */
    heldUntil: string | null;
  };
  /** There if there is lag: why nothing moves. */
  why?: { code: string; message: string };
}

/** How a group stands. */
export interface Group {
  group: string;
  /** How often a record may fail before it goes to `_dead-letter`. */
  attemptsMax: number;
  /** In records, of all its partitions. */
  lag: number;
  members: GroupMember[];
  partitions: GroupPartition[];
}

/** Where a group is to read on: exactly one of `offset`, `timestamp` and `to`. */
export interface GroupReset extends CallOptions {
  topic: string;
  /** All partitions if it is absent. */
  partition?: number;
  offset?: number;
  /** The first record stored then or later; RFC 3339, or a `Date`. */
  timestamp?: string | Date;
  to?: 'earliest' | 'latest';
  /** Although members are live: what they hold of these partitions they cannot commit. */
  force?: boolean;
}

/** Where a group reads on. */
export interface GroupPlaces {
  group: string;
  topic: string;
  partitions: { partition: number; nextOffset: number }[];
}

/** Consumer groups: how they stand, and setting them. */
export class Groups {
  readonly #transport: Transport;

  /** @internal Reached as `client.stream.groups`. */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Lists the groups that have members or commits; `next` is there if there are more. */
  async list(
    options: PageOptions = {},
  ): Promise<{ groups: { group: string; members: number }[]; next?: string }> {
    const { limit, after, signal } = options;
    const query = { limit, after };
    return fromWire(await this.#transport.call({ method: 'GET', path: '/groups', query, signal }));
  }

  /** How a group stands. Throws `NotFoundError` if it has neither members nor commits nor settings. */
  async get(group: string, options: CallOptions = {}): Promise<Group> {
    return fromWire(
      await this.#transport.call({ method: 'GET', path: path`/groups/${group}`, ...options }),
    );
  }

  /** Sets how often a record may fail, from the next nack on; 1–1,000, five if it is absent. */
  async set(
    group: string,
    { attemptsMax, signal }: { attemptsMax?: number } & CallOptions,
  ): Promise<{ group: string; attemptsMax: number }> {
    const json = toWire({ attemptsMax });
    const call = { method: 'PUT', path: path`/groups/${group}`, json, idempotent: true } as const;
    return fromWire(await this.#transport.call({ ...call, signal }));
  }

  /**
   * Sets where a group reads on.
   *
   * Throws `ConflictError` `group-has-members` unless forced, `OffsetError` for an offset that is
   * trimmed or not there yet.
   */
  async reset(group: string, reset: GroupReset): Promise<GroupPlaces> {
    const { signal, timestamp, ...rest } = reset;
    const time = timestamp instanceof Date ? timestamp.toISOString() : timestamp;
    const json = toWire({ ...rest, timestamp: time });
    const to = path`/groups/${group}/reset`;
    return fromWire(await this.#transport.call({ method: 'POST', path: to, json, signal }));
  }

  /** Deletes a group. Throws `ConflictError` `group-has-members` unless forced. */
  async delete(group: string, options: { force?: boolean } & CallOptions = {}): Promise<void> {
    const { force, signal } = options;
    const to = path`/groups/${group}`;
    await this.#transport.call({ method: 'DELETE', path: to, query: { force }, signal });
  }
}
