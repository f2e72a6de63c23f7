import { expect, test } from 'vitest';

import { type SseEvent, SseParser } from '../../src/sse.js';

function parsed(...chunks: string[]): { events: SseEvent[]; id: string } {
  const parser = new SseParser();
  const events = chunks.flatMap((chunk) => [...parser.feed(chunk)]);
  return { events, id: parser.lastEventId };
}

const message = (data: string): SseEvent => ({ type: 'message', data });

test.each<[string, string, SseEvent[], string]>([
  ['an event', 'id: 1\ndata: a\n\n', [message('a')], '1'],
  ['carriage returns and line feeds', 'id: 1\r\ndata: a\r\n\r\n', [message('a')], '1'],
  ['carriage returns', 'id: 1\rdata: a\r\r', [message('a')], '1'],
  ['several lines of data', 'data: a\ndata:\ndata: b\n\n', [message('a\n\nb')], ''],
  [
    'a type',
    'event: error\ndata: {}\n\ndata: a\n\n',
    [{ type: 'error', data: '{}' }, message('a')],
    '',
  ],
  ['comments', ': ping\n\n: ping\ndata: a\n\n', [message('a')], ''],
  ['one space only', 'data:  a\n\ndata:b\n\n', [message(' a'), message('b')], ''],
  ['a field without a colon', 'data\n\n', [message('')], ''],
  ['an id without data', 'id: 7\n\n', [], '7'],
  [
    'an id that is taken back',
    'id: 7\ndata: a\n\nid\ndata: b\n\n',
    [message('a'), message('b')],
    '',
  ],
  [
    'an id with a zero',
    'id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n',
    [message('a'), message('b')],
    '1',
  ],
  ['an event that is not complete', 'id: 1\ndata: a\n\nid: 2\ndata: b\n', [message('a')], '1'],
  ['a byte order mark', '\uFEFFdata: a\n\n', [message('a')], ''],
  ['fields that are not known', 'retry: 1000\nwhat: x\ndata: a\n\n', [message('a')], ''],
])('%s is read alike however the stream is cut', (_, text, events, id) => {
  expect(parsed(text)).toEqual({ events, id });
  expect(parsed(...text)).toEqual({ events, id });
  for (let cut = 0; cut <= text.length; cut += 1) {
    expect(parsed(text.slice(0, cut), text.slice(cut))).toEqual({ events, id });
  }
});
