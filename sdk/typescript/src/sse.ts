// Server-Sent Events out of bytes, as the HTML standard reads them.

/** An event of a stream. */
export interface SseEvent {
  /** `message` unless the stream says otherwise. */
  type: string;
  /** Its lines, joined by a newline. */
  data: string;
}

/** Reads a stream's text, however it is cut. */
export class SseParser {
  /** The `id` of the last event that was complete, also of one without data; empty before. */
  lastEventId = '';
  #rest = '';
  /** The text before ended with a carriage return: a line feed that follows belongs to it. */
  #endedWithReturn = false;
  #isFirst = true;
  #type = '';
  #data: string[] = [];
  #id: string | undefined;

  /** The events that are complete with this text. */
  *feed(text: string): Generator<SseEvent> {
    for (const line of this.#lines(text)) {
      const event = line === '' ? this.#finish() : this.#field(line);
      if (event !== undefined) yield event;
    }
  }

  *#lines(text: string): Generator<string> {
    if (text === '') return;
    if (this.#isFirst) {
      this.#isFirst = false;
      text = text.replace(/^\uFEFF/, '');
    }
    if (this.#endedWithReturn && text.startsWith('\n')) text = text.slice(1);
    this.#endedWithReturn = text.endsWith('\r');
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop() ?? '';
    yield* lines;
  }

  #field(line: string): undefined {
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    // Anything else is a comment (an empty name), or unknown; `retry` gives way to our own backoff.
  }

  #finish(): SseEvent | undefined {
    const event = { type: this.#type || 'message', data: this.#data.join('\n') };
    const isEmpty = this.#data.length === 0;
    if (this.#id !== undefined) this.lastEventId = this.#id;
    this.#type = '';
    this.#data = [];
    this.#id = undefined;
    return isEmpty ? undefined : event;
  }
}
