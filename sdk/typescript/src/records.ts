// What is published and what is read.

import { isObject } from './errors.js';

/** An event to be published. */
export interface NewEvent {
  /** Any JSON. */
  value: unknown;
  /** Events of one key share a partition and keep their order. */
  key?: string | null;
  /** At most 64. */
  headers?: Readonly<Record<string, string>>;
  /** The publisher's identity for it. */
  id?: string;
  /** When it happened; RFC 3339, or a `Date`. */
  time?: string | Date;
  /** Instead of the partition that the key, or the batch's turn, gives. */
  partition?: number;
  /** Kept as the header `ce-type`. */
  type?: string;
}

/** A stored event. `V` is the type that the reader expects its value to have; nothing checks it. */
export interface StreamRecord<V = unknown> {
  topic: string;
  /** From 0. */
  partition: number;
  /** The record's number in its partition, from 0. */
  offset: number;
  /** When it was stored; RFC 3339. */
  timestamp: string;
  /** `null` if it was published without one. */
  key: string | null;
  headers: Readonly<Record<string, string>>;
  /** As it was published; a base64 string if `encoding` says so. */
  value: V;
  /** There if the value is not JSON. */
  encoding?: 'base64';
  /** The publisher's identity for it. */
  id?: string;
  /** When it happened, as the publisher said. */
  time?: string;
  contentType?: string;
  /** Which attempt it is to process it, for a member of a group; there from the second on. */
  attempt?: number;
}

/** A record as the server sends it. */
export interface WireRecord extends Omit<StreamRecord, 'key' | 'headers' | 'contentType'> {
  key?: string;
  headers?: Record<string, string>;
  content_type?: string;
}

/** A record as it is handed out. */
export function recordOf<V>(wire: WireRecord): StreamRecord<V> {
  const { key, headers, value, content_type: contentType, ...rest } = wire;
  return {
    ...rest,
    key: key ?? null,
    headers: headers ?? {},
    value: value as V,
    ...(contentType === undefined ? {} : { contentType }),
  };
}

/** An event as the server reads it. */
export function eventToWire(event: NewEvent): Record<string, unknown> {
  const { time, ...rest } = event;
  return time === undefined
    ? rest
    : { ...rest, time: time instanceof Date ? time.toISOString() : time };
}

/** Names with underscores, as the server spells fields, from and to those of this package. */
type Wire = Readonly<Record<string, unknown>>;

/**
 * An answer with its fields' names in camel case. Only for answers without fields that users name:
 * values and headers of records never pass through here.
 */
export function fromWire<T>(wire: unknown): T {
  const camel = (name: string): string =>
    name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return renamed(wire, camel) as T;
}

/** A request's fields in the server's spelling; the first level only. */
export function toWire(fields: object): Wire {
  const snake = (name: string): string =>
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [snake(name), value]));
}

function renamed(value: unknown, rename: (name: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [rename(name), renamed(item, rename)]),
  );
}
