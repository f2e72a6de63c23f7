// A server in a process of its own on a free port, with a data folder of its own.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

/** The key that test servers know. */
export const KEY = 'sk_test-key-of-the-sdk-tests';

const PACKAGE = resolve(import.meta.dirname, '../..');
const BINARY = resolve(PACKAGE, process.env['STREAM_BIN'] ?? '../../target/debug/stream');

/** A running server. */
export class Server {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(url: string, child: ChildProcess, folder: string) {
    this.url = url;
    this.#child = child;
    this.#folder = folder;
  }

  /** Starts a server on an empty folder. */
  static start(): Promise<Server> {
    return Server.#start(mkdtempSync(join(tmpdir(), 'stream-sdk-')), '127.0.0.1:0');
  }

  /** Kills it, as a crash does, and starts it on the same folder and address. */
  async restart(): Promise<Server> {
    await this.#kill();
    return Server.#start(this.#folder, new URL(this.url).host);
  }

  /** Kills it and removes its folder. */
  async stop(): Promise<void> {
    await this.#kill();
    rmSync(this.#folder, { recursive: true });
  }

  static async #start(folder: string, listen: string): Promise<Server> {
    const settings = ['--listen', listen, '--data', join(folder, 'data'), '--cors-origin', '*'];
    const child = spawn(BINARY, ['serve', ...settings], {
      env: { ...process.env, STREAM_API_KEY: KEY, STREAM_RESERVE_BYTES: '0' },
      stdio: ['ignore', 'pipe', process.env['STREAM_LOGS'] ? 'inherit' : 'ignore'],
    });
    const started = new Promise<string>((listening, failed) => {
      child.on('error', failed);
      child.on('exit', (code) => failed(new Error(`${BINARY} ended with ${code}`)));
      createInterface({ input: child.stdout }).on('line', (line) => {
        if (line.startsWith('listening on ')) listening(line.slice('listening on '.length));
      });
    });
    return new Server(await started, child, folder);
  }

  async #kill(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((end) => this.#child.once('exit', end));
    this.#child.kill('SIGKILL');
    await ended;
  }
}
