/**
 * Starts `serve-disks.mjs` in a process of its own and talks to it, so that tests may use its
 * mount synchronously.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Mount } from '../../src/transport/mount.js';

const ROOT = resolve(import.meta.dirname, '../..');
const SCRIPT = join(ROOT, 'test/support/serve-disks.mjs');
const STOP_LIMIT_MS = 10_000;

export type ChannelKind = 'kernel' | 'fuse-native';
export const CHANNELS: readonly ChannelKind[] = ['kernel', 'fuse-native'];

export interface ServedDisk {
  readonly vm: string;
  readonly name: string;
  readonly path: string;
  readonly readOnly?: boolean;
  readonly readErrno?: string;
  readonly writeErrno?: string;
  readonly flushErrno?: string;
  readonly bug?: boolean;
  readonly crashes?: number;
}

export interface ServerConfig {
  readonly kind: ChannelKind;
  readonly mountpoint: string;
  readonly disks: readonly ServedDisk[];
  readonly threads?: number;
  readonly writeback?: boolean;
  readonly allowOther?: boolean;
  /** A mount made by the test; its descriptor becomes number 3 of the server. */
  readonly adopt?: { readonly mount: Mount; readonly takeover: boolean };
  /** Run as this user (and group) instead. */
  readonly uid?: number;
}

/** One line that the server said. */
export interface Answer {
  readonly ready?: boolean;
  readonly mountpoint?: string;
  readonly error?: { readonly code: string; readonly message: string; readonly hint?: string };
  readonly result?: unknown;
  readonly ended?: string;
  readonly counters?: Readonly<Record<string, number>>;
}

/** Why tests that mount can't run here; undefined when they can. */
export function cannotMount(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux';
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync('/dev/fuse')) return 'needs /dev/fuse';
  if (!existsSync(join(ROOT, 'dist/modules/transport/kernel/thread.js')))
    return 'run npm run build first';
  return undefined;
}

export class DiskServer {
  readonly child: ChildProcess;
  /** Resolves with the last line of a server that ended in order; undefined when it was killed. */
  readonly ended: Promise<Answer | undefined>;
  readonly #waiting: ((answer: Answer) => void)[] = [];
  readonly #mountpoint: string;
  #complaint = '';

  private constructor(config: ServerConfig) {
    this.#mountpoint = config.mountpoint;
    const { uid, adopt, ...others } = config;
    const rest = {
      ...others,
      ...(adopt && { adopt: { ...adopt, mount: { ...adopt.mount, fd: 3 } } }),
    };
    // tap puts a loader into NODE_OPTIONS of every process: the server must be plain node.
    const command = ['-u', 'NODE_OPTIONS', process.execPath, SCRIPT, JSON.stringify(rest)];
    this.child = spawn('env', command, {
      stdio: ['pipe', 'pipe', 'pipe', ...(adopt === undefined ? [] : [adopt.mount.fd])],
      ...(uid === undefined ? {} : { uid, gid: uid }),
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaint += text;
    });
    let last: Answer | undefined;
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      const answer = JSON.parse(line) as Answer;
      if (answer.ended === undefined) this.#waiting.shift()?.(answer);
      else last = answer;
    });
    this.ended = new Promise((resolvePromise) => {
      this.child.on('close', () => {
        for (const waiting of this.#waiting) {
          waiting({ error: { code: 'gone', message: this.#complaint } });
        }
        resolvePromise(last);
      });
    });
  }

  /** Starts a server; its first answer says whether it serves. */
  static async launch(config: ServerConfig): Promise<{ server: DiskServer; first: Answer }> {
    const server = new DiskServer(config);
    return { server, first: await server.#next() };
  }

  /** Starts a server that must come up. */
  static async start(config: ServerConfig): Promise<DiskServer> {
    const { server, first } = await DiskServer.launch(config);
    if (first.ready !== true) throw new Error(`no server: ${JSON.stringify(first)}`);
    return server;
  }

  #next(): Promise<Answer> {
    return new Promise((resolvePromise) => this.#waiting.push(resolvePromise));
  }

  ask(action: string, parameters: object = {}): Promise<Answer> {
    const answer = this.#next();
    this.child.stdin?.write(`${JSON.stringify({ do: action, ...parameters })}\n`);
    return answer;
  }

  async counters(): Promise<Readonly<Record<string, number>>> {
    return (await this.ask('counters')).result as Readonly<Record<string, number>>;
  }

  /** Ends the server whatever its state, and leaves nothing mounted. */
  async dispose(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_LIMIT_MS);
      this.child.stdin?.on('error', () => {}); // It may end while we write.
      this.child.stdin?.write('{"do":"stop"}\n');
      await this.ended;
      clearTimeout(timer);
    }
    while (isMounted(this.#mountpoint)) execFileSync('umount', ['-l', this.#mountpoint]);
  }
}

export function isMounted(mountpoint: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountpoint} `);
}

/** A fresh directory outside the project, and how to remove it. */
export function temporaryDirectory(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'layerdisk-test-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
