/** A control server on a socket of its own, and raw connections to it, for tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ControlLimits, ControlLog } from '../../src/control/connection.js';
import type { Handlers } from '../../src/control/protocol.js';
import { serveControl } from '../../src/control/server.js';

export interface LogLine {
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: object | undefined;
}

export interface Fixture {
  readonly folder: string;
  readonly path: string;
  readonly log: LogLine[];
  close(): Promise<void>;
}

interface Test {
  teardown(work: () => unknown): void;
}

/** A new folder under the temporary one, removed when the test ends. */
export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export function recordingLog(): { log: ControlLog; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const write = (level: LogLine['level']) => (message: string, fields?: object) => {
    lines.push({ level, message, fields });
  };
  return { log: { info: write('info'), warn: write('warn'), error: write('error') }, lines };
}

/** Serves `handlers` until the test ends. */
export async function serve(
  t: Test,
  handlers: Handlers,
  limits: Partial<ControlLimits> = {},
): Promise<Fixture> {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-test-'));
  const path = join(folder, 'control.sock');
  const { log, lines } = recordingLog();
  const server = await serveControl({ path, handlers, log, limits });
  const close = () => server.close();
  t.teardown(async () => {
    await close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { folder, path, log: lines, close };
}

export interface RawAnswer {
  readonly id?: unknown;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
  readonly method?: string;
  readonly params?: unknown;
}

/** A client that can misbehave. */
export class RawClient {
  readonly socket: Socket;
  readonly received: RawAnswer[] = [];
  readonly closed: Promise<void>;
  #text = '';
  #wake: (() => void) | undefined;

  constructor(path: string) {
    this.socket = createConnection(path);
    this.socket.setEncoding('utf8');
    this.socket.on('data', (chunk: string) => this.#take(chunk));
    // Being dropped is what most of these tests are about.
    this.socket.on('error', () => {});
    this.closed = new Promise((done) => {
      this.socket.on('close', () => done());
    });
  }

  send(text: string | Buffer): void {
    this.socket.write(text);
  }

  request(id: unknown, method: string, params?: unknown): void {
    this.send(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`);
  }

  /** The next line from the daemon; fails when the connection closes first. */
  async next(): Promise<RawAnswer> {
    while (this.received.length === 0) {
      const arrived = new Promise<void>((done) => {
        this.#wake = done;
      });
      const gone = this.closed.then(() => {
        if (this.received.length === 0) throw new Error('closed before an answer came');
      });
      await Promise.race([arrived, gone]);
    }
    return this.received.shift() ?? {};
  }

  destroy(): void {
    this.socket.destroy();
  }

  #take(chunk: string): void {
    this.#text += chunk;
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    for (const line of lines) {
      if (line !== '') this.received.push(JSON.parse(line) as RawAnswer);
    }
    this.#wake?.();
  }
}
