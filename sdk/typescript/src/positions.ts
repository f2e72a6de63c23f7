// Where published events are, as the server answers it.

/** When the server answers: `durable`, once it is synced; `memory`, before (it may be lost). */
export type Ack = 'durable' | 'memory';

/** An event that was not stored where it was meant to be. */
export interface Refusal {
  /** The event's place in the request, from 0. */
  index: number;
  /** Why, for people. */
  reason?: string;
  /** The topic that it was going to. */
  topic?: string;
  /** The plugin that refused it or broke; absent if it was the topic's schema, or a route. */
  plugin?: { name: string; version: number };
  /** Why the plugin or the route broke; absent if none did. */
  cause?: string;
}

/** Offsets that one request got in one partition; without gaps, both ends included. */
export interface OffsetRange {
  partition: number;
  firstOffset: number;
  lastOffset: number;
}

/** What one topic got of a request. */
export interface TopicPlaces {
  topic: string;
  count: number;
  partitions: OffsetRange[];
}

/** Where one event is stored. */
export interface Produced {
  topic: string;
  /** Absent, with `offset`, if it was dropped, dead-lettered, or a repeat from very long ago. */
  partition?: number;
  offset?: number;
  /** When it was stored; RFC 3339. */
  timestamp?: string;
  ack: Ack;
  /** An earlier attempt had stored it. */
  duplicate?: boolean;
  /** There if it went to `_dead-letter`, since a plugin or a route broke on it. */
  deadLettered?: Refusal[];
  /** Its copies in other topics, if routes lead there. */
  copies?: TopicPlaces[];
  /** There if a transform dropped it. */
  dropped?: number;
}

/** Where the events of one request are stored. */
export interface Published {
  topic: string;
  /** How many events were stored, each counted once. */
  count: number;
  partitions: OffsetRange[];
  ack: Ack;
  /** An earlier attempt had stored them. */
  duplicate: boolean;
  /** With `onReject: 'partial'`: those that were rejected, and not stored. */
  rejected?: Refusal[];
  /** Those that went to `_dead-letter`, since a plugin or a route broke on them. */
  deadLettered?: Refusal[];
  copies?: TopicPlaces[];
  /** How many a transform dropped. */
  dropped?: number;
}

/** What a transaction has stored. */
export interface Transacted {
  count: number;
  topics: TopicPlaces[];
  deadLettered: Refusal[];
  dropped: number;
  ack: Ack;
  /** An earlier attempt had done it. */
  duplicate: boolean;
}
