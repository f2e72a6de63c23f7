// One member of a group: joins, stays alive, reads, commits, leaves. What a batch is, and when it is
// committed, is decided by others.

import { FencedError, FourbyfourError, NotFoundError } from './errors.js';
import { isSamePartition, type Lost, type Place, placeToWire } from './places.js';
import { randomId } from './random.js';
import { fromWire, toWire, type WireRecord } from './records.js';
import { startTimer } from './time.js';
import { type CallOptions, path, type Transport } from './transport.js';

/** Characters of a reason: the server takes 4,096 bytes, and a character has three at most. */
const REASON_MAX = 1_365;

/** How often in a row a member joins again before it gives up. */
const REJOINS_MAX = 3;

/** How to be a member. */
export interface MemberOptions {
  group: string;
  /** Topics and patterns. */
  subscriptions: readonly string[];
  /** A topic without which joining is an error; a group may wait for topics to come otherwise. */
  mustExist?: string;
  /** How long the server waits for a sign of life, in milliseconds; 500–600,000, default 30,000. */
  sessionTimeoutMs?: number;
  /** A name that outlives this process: who comes back under it has its partitions again. */
  instanceId?: string;
  /** Leaves the group if nothing was read for so long, in milliseconds; default five minutes. */
  idleTimeoutMs?: number;
}

/** How much to read at once. */
export interface ReadOptions extends CallOptions {
  /** At most so many records, 1–10,000; default 100. */
  limit?: number;
  /** Stop before so many bytes of records, but not before the first; default 1 MiB. */
  maxBytes?: number;
  /** How long to wait if there is no record yet, in milliseconds, at most 60,000. */
  waitMs?: number;
}

/** What a member has read. */
export interface MemberRead {
  /** Who has read it: a member that joined again has another name. */
  member: string;
  records: WireRecord[];
  /** What to commit once they are processed. */
  next: Place[];
  lost: Lost[];
}

/** A record that could not be processed. */
export interface Nack {
  topic: string;
  partition: number;
  generation: number;
  offset: number;
  delayMs?: number;
  reason?: string;
}

/** What comes of a record that could not be processed. */
export interface Nacked {
  topic: string;
  partition: number;
  offset: number;
  /** How often it has failed. */
  attempts: number;
  /** How often it may. */
  attemptsMax: number;
  /** It went to `_dead-letter`, and the group goes on behind it. */
  deadLettered: boolean;
  nextOffset: number;
  /** Until when nothing of the partition is read; RFC 3339, `null` if it is read at once. */
  heldUntil: string | null;
}

interface Assigned extends Place {
  /** It is to be given up. */
  revoking?: boolean;
}

interface Members {
  members: { instance_id?: string }[];
}

interface Membership {
  member: string;
  assignment: Assigned[];
  heartbeatMs: number;
}

/** A member of a group that joins when it first reads, and again when the server forgot it. */
export class Member {
  readonly #transport: Transport;
  readonly #options: MemberOptions;
  /** Under a name of its own, a member that joins twice, since no answer came, is one member. */
  readonly #instanceId: string;
  /** What of the partitions is still being processed, as its owner knows. */
  readonly #held: () => readonly Place[];
  #joined: Promise<Membership> | undefined;
  /** Its name, from when it has joined until it has left or is forgotten. */
  #name: string | undefined;
  /** Set for good once another has taken its name. */
  #replaced: FencedError | undefined;
  #stopTimer: (() => void) | undefined;
  #readsUnderWay = 0;
  #lastRead = 0;

  constructor(transport: Transport, options: MemberOptions, held: () => readonly Place[]) {
    this.#transport = transport;
    this.#options = options;
    this.#instanceId = options.instanceId ?? randomId();
    this.#held = held;
  }

  /**
   * Reads from what the group has committed; joins first if need be.
   *
   * Throws `NotFoundError` if the topic that must exist does not, and `FencedError` if another has
   * joined under its `instanceId`, then and ever after.
   */
  async read(options: ReadOptions): Promise<MemberRead> {
    this.#readsUnderWay += 1;
    try {
      for (let rejoins = 0; ; rejoins += 1) {
        if (this.#replaced !== undefined) throw this.#replaced;
        const { member } = await abortable(this.#join(), options.signal);
        try {
          return await this.#read(member, options);
        } catch (error) {
          if (!isUnknownMember(error)) throw error;
          this.#forget(member);
          if (await this.#isReplaced()) this.#replaced = error;
          if (rejoins >= REJOINS_MAX) throw error;
        }
      }
    } finally {
      this.#readsUnderWay -= 1;
      this.#lastRead = Date.now();
    }
  }

  /** Commits under the name that has read; all or nothing. */
  async commit(member: string, places: readonly Place[], options: CallOptions = {}): Promise<void> {
    const { group } = this.#options;
    await this.#transport.call({
      method: 'POST',
      path: path`/groups/${group}/members/${member}/offsets`,
      json: { partitions: places.map(placeToWire) },
      idempotent: true,
      signal: options.signal,
    });
  }

  /** Says under the name that has read that a record could not be processed. */
  async nack(member: string, nack: Nack, options: CallOptions = {}): Promise<Nacked> {
    const answer = await this.#transport.call({
      method: 'POST',
      path: path`/groups/${this.#options.group}/members/${member}/nack`,
      json: toWire({ ...nack, reason: nack.reason?.slice(0, REASON_MAX) }),
      // The server counts one failure of a generation.
      idempotent: true,
      signal: options.signal,
    });
    return fromWire<Nacked>(answer);
  }

  /** Leaves the group, so that others get its partitions at once. */
  async leave(): Promise<void> {
    const joined = this.#joined;
    if (joined === undefined) return;
    // Who could not join has nothing to leave, and was told so when it read.
    const membership = await joined.catch(() => undefined);
    if (membership === undefined) return;
    this.#forget(membership.member);
    await this.#leave(membership.member);
  }

  async #leave(member: string): Promise<void> {
    try {
      await this.#transport.call({
        method: 'DELETE',
        path: path`/groups/${this.#options.group}/members/${member}`,
        idempotent: true,
      });
    } catch (error) {
      if (!isUnknownMember(error)) throw error;
    }
  }

  async #read(member: string, options: ReadOptions): Promise<MemberRead> {
    const { limit, maxBytes, waitMs, signal } = options;
    const answer = await this.#transport.call<{
      records: WireRecord[];
      next: unknown;
      lost: unknown;
    }>({
      method: 'GET',
      path: path`/groups/${this.#options.group}/members/${member}/records`,
      query: { limit, max_bytes: maxBytes, wait_ms: waitMs },
      waitMs,
      signal,
    });
    const { records, next, lost } = answer;
    return { member, records, next: fromWire<Place[]>(next), lost: fromWire<Lost[]>(lost) };
  }

  /** Not given up when a reader does: a member whose name is lost holds partitions for nothing. */
  #join(): Promise<Membership> {
    if (this.#joined !== undefined) return this.#joined;
    const joining = this.#joinNow();
    this.#joined = joining;
    joining.catch(() => {
      if (this.#joined === joining) this.#joined = undefined;
    });
    return joining;
  }

  async #joinNow(): Promise<Membership> {
    const { group, subscriptions, sessionTimeoutMs, mustExist } = this.#options;
    const answer = await this.#transport.call({
      method: 'POST',
      path: path`/groups/${group}/members`,
      json: {
        subscriptions,
        session_timeout_ms: sessionTimeoutMs,
        instance_id: this.#instanceId,
      },
      idempotent: true,
    });
    const membership = fromWire<Membership>(answer);
    if (membership.assignment.length === 0 && mustExist !== undefined) {
      await this.#checkTopic(mustExist, membership.member);
    }
    this.#name = membership.member;
    this.#lastRead = Date.now();
    this.#beat(membership);
    return membership;
  }

  /** Whether another is a member under the same name: to join again would fence that one. */
  async #isReplaced(): Promise<boolean> {
    if (this.#options.instanceId === undefined) return false;
    const to = path`/groups/${this.#options.group}`;
    try {
      const group = await this.#transport.call<Members>({ method: 'GET', path: to });
      return group.members.some((member) => member.instance_id === this.#instanceId);
    } catch (error) {
      if (error instanceof NotFoundError) return false;
      throw error;
    }
  }

  async #checkTopic(topic: string, member: string): Promise<void> {
    try {
      await this.#transport.call({ method: 'GET', path: path`/topics/${topic}` });
    } catch (error) {
      await this.#leave(member);
      throw error;
    }
  }

  #beat(membership: Membership): void {
    this.#stopTimer?.();
    this.#stopTimer = startTimer(() => {
      void this.#stayAlive(membership);
    }, membership.heartbeatMs);
  }

  async #stayAlive(membership: Membership): Promise<void> {
    const { member } = membership;
    const idleMs = this.#options.idleTimeoutMs ?? 300_000;
    try {
      // A read counts as a heartbeat while it waits.
      if (this.#readsUnderWay === 0) {
        if (Date.now() - this.#lastRead >= idleMs) return await this.leave();
        await this.#heartbeat(member);
      }
    } catch (error) {
      if (isUnknownMember(error)) return this.#forget(member);
      // Whatever it is, the next read meets it too and tells its caller; until then the session
      // may well outlive it.
    }
    if (this.#name === member) this.#beat(membership);
  }

  async #heartbeat(member: string): Promise<void> {
    const call = async (release?: unknown): Promise<Assigned[]> => {
      const answer = await this.#transport.call({
        method: 'POST',
        path: path`/groups/${this.#options.group}/members/${member}/heartbeat`,
        json: { release },
        maxRetries: 0,
      });
      return fromWire<Membership>(answer).assignment;
    };
    const assignment = await call();
    const held = this.#held();
    const release = assignment
      .filter((place) => place.revoking && !held.some((other) => isSamePartition(other, place)))
      .map(({ topic, partition, generation }) => ({ topic, partition, generation }));
    if (release.length > 0 && this.#readsUnderWay === 0) await call(release);
  }

  #forget(member: string): void {
    if (this.#name !== member) return;
    this.#name = undefined;
    this.#joined = undefined;
    this.#stopTimer?.();
  }
}

function isUnknownMember(error: unknown): error is FencedError {
  return error instanceof FencedError && error.code === 'unknown-member';
}

/** The promise, or the signal's reason if that comes first; the promise goes on. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason as FourbyfourError);
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
