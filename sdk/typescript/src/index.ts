// The public names of the package.

export { Fourbyfour, type FourbyfourOptions } from './client.js';
export { ConsumedBatch, type NackOptions } from './batch.js';
export {
  AuthError,
  ClosedError,
  ConflictError,
  type ErrorFields,
  FencedError,
  FourbyfourError,
  NetworkError,
  NotFoundError,
  OffsetError,
  RateLimitError,
  ServerError,
  ValidationError,
} from './errors.js';
export { Groups } from './groups.js';
export type { Group, GroupMember, GroupPartition, GroupPlaces, GroupReset } from './groups.js';
export type { LiveOptions } from './live.js';
export type { Nacked } from './member.js';
export type { Lost, Place } from './places.js';
export type { Sent } from './outbox.js';
export type {
  Ack,
  OffsetRange,
  Produced,
  Published,
  Refusal,
  TopicPlaces,
  Transacted,
} from './positions.js';
export { Producer, type ProducerOptions } from './producer.js';
export type {
  MemberOffsets,
  NewTransaction,
  PublishBatchOptions,
  PublishOptions,
  TopicEvents,
} from './publish.js';
export type { NewEvent, StreamRecord } from './records.js';
export { Stream } from './stream.js';
export type { GroupSubscription, LiveSubscription } from './subscribe.js';
export { Topics } from './topics.js';
export type {
  ConsumeOptions,
  NewTopic,
  PageOptions,
  Topic,
  TopicPatch,
  TopicStats,
} from './topics.js';
export type { CallOptions } from './transport.js';
