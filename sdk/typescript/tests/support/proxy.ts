// A proxy that forwards requests whole, and can lose their answers.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

import { onTestFinished } from 'vitest';

/** A server of the test itself on a free port, closed at the test's end. */
export async function serve(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What became of an answer. */
export interface Forwarded {
  path: string;
  status: number;
  isLost: boolean;
}

/**
 * A proxy in front of `target`; the answer to a `POST` for which `loses` says so is not passed on:
 * the server has done what it was asked to, and the client does not know.
 */
export async function flakyProxy(
  target: string,
  loses: (path: string, count: number) => boolean,
): Promise<{ url: string; forwarded: Forwarded[] }> {
  const forwarded: Forwarded[] = [];
  const forward = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { connection: _, host: __, 'content-length': ___, ...headers } = request.headers;
    const body = await text(request);
    const answer = await fetch(`${target}${request.url}`, {
      method: request.method,
      headers: headers as Record<string, string>,
      body: body === '' ? undefined : body,
    });
    const answered = await answer.text();
    const path = new URL(request.url ?? '', target).pathname;
    const isLost = request.method === 'POST' && loses(path, forwarded.length);
    forwarded.push({ path, status: answer.status, isLost });
    if (isLost) return void request.socket.destroy();
    response.writeHead(answer.status, { 'Content-Type': 'application/json' }).end(answered);
  };
  const url = await serve((request, response) => {
    forward(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  return { url, forwarded };
}
