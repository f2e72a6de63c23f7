// What can go wrong, as classes that a program can tell apart. No HTTP is spoken here.

/** What the server, or the client itself, says of a failure. */
export interface ErrorFields {
  /** HTTP status; 0 if no answer came. */
  status: number;
  /** A stable kebab-case word, such as `topic-not-found`. */
  code: string;
  /** For people; may change. */
  message: string;
  /** Whether the same request may succeed later. */
  retryable: boolean;
  /** The answer's `x-request-id`, to be found in the server's log. */
  requestId?: string;
  /** All that the answer's `error` holds, spelled as the server does (`current`, `rejected`, …). */
  details?: Readonly<Record<string, unknown>>;
  /** When the server wants to be asked again, in milliseconds from now. */
  retryAfterMs?: number;
  /** What this error is the consequence of. */
  cause?: unknown;
}

/** Any failure of this client; the subclasses say what can be done about it. */
export class FourbyfourError extends Error {
  /** HTTP status; 0 if no answer came. */
  readonly status: number;
  /** A stable kebab-case word, such as `topic-not-found`. */
  readonly code: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  /** The answer's `x-request-id`. */
  readonly requestId: string | undefined;
  /** All that the answer's `error` holds. */
  readonly details: Readonly<Record<string, unknown>>;
  /** When the server wants to be asked again, in milliseconds from the answer. */
  readonly retryAfterMs: number | undefined;

  constructor(fields: ErrorFields) {
    super(fields.message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = new.target.name;
    this.status = fields.status;
    this.code = fields.code;
    this.retryable = fields.retryable;
    this.requestId = fields.requestId;
    this.details = fields.details ?? {};
    this.retryAfterMs = fields.retryAfterMs;
  }
}

/** 401 and 403: the key is unknown, lacks a scope, or belongs to another project. */
export class AuthError extends FourbyfourError {}

/** 404: the topic, group, project … is not there. */
export class NotFoundError extends FourbyfourError {}

/** 409: what is there already stands against it, such as `topic-exists`. */
export class ConflictError extends FourbyfourError {}

/**
 * Another took over: `unknown-member`, `stale-generation`, `partition-not-owned` for members of a
 * group, `stale-epoch`, `producer-shared` and `sequence-gap` for producers. Nothing was stored or
 * committed by the call.
 */
export class FencedError extends ConflictError {}

/** 400, 413, 415, 422: the request, or an event in it (`details.rejected`), breaks a rule. */
export class ValidationError extends FourbyfourError {}

/** 410 and 416, and `records-lost`: the records asked for are trimmed, or not there yet. */
export class OffsetError extends FourbyfourError {}

/** 429: too much at once; `retryAfterMs` says when to ask again. */
export class RateLimitError extends FourbyfourError {}

/** 5xx: the server, its disk, or a plugin of the project cannot do it now. */
export class ServerError extends FourbyfourError {}

/**
 * No answer came, or not all of it (`network`), or not in time (`timeout`). Whether the server did
 * what it was asked to is unknown, unless the call is one that is safe to repeat.
 */
export class NetworkError extends FourbyfourError {}

/** Something was asked of a client, producer or consumer that is closed. */
export class ClosedError extends FourbyfourError {
  constructor(what: string) {
    super({ status: 0, code: 'closed', message: `${what} is closed`, retryable: false });
  }
}

const FENCED = new Set([
  'unknown-member',
  'stale-generation',
  'partition-not-owned',
  'stale-epoch',
  'producer-shared',
  'sequence-gap',
]);

/** The error of the class that fits the status and the code. */
export function errorOf(fields: ErrorFields): FourbyfourError {
  return new (classOf(fields))(fields);
}

function classOf({ status, code }: ErrorFields): new (fields: ErrorFields) => FourbyfourError {
  if (FENCED.has(code)) return FencedError;
  switch (status) {
    case 401:
    case 403:
      return AuthError;
    case 404:
      return NotFoundError;
    case 409:
      return ConflictError;
    case 410:
    case 416:
      return OffsetError;
    case 400:
    case 413:
    case 415:
    case 422:
      return ValidationError;
    case 429:
      return RateLimitError;
    default:
      return status >= 500 ? ServerError : FourbyfourError;
  }
}

/** Reads `{"error": {…}}`, as an answer's body or an event of a stream has it. */
export function errorFromBody(
  status: number,
  body: unknown,
  extra: { requestId?: string; retryAfterMs?: number } = {},
): FourbyfourError {
  const error = isObject(body) && isObject(body['error']) ? body['error'] : {};
  const { code, message, retryable } = error;
  return errorOf({
    status,
    code: typeof code === 'string' ? code : `http-${status}`,
    message: typeof message === 'string' ? message : `the server answered ${status}`,
    retryable: typeof retryable === 'boolean' ? retryable : [429, 502, 503, 504].includes(status),
    details: error,
    ...extra,
  });
}

/** Whether `value` is an object with fields. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
