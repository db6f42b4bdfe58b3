/**
 * A daemon of its own for a test: started from the compiled program, asked through the command
 * line.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { CliShell } from './cli-shell.js';
import { mountsBelow, releaseBelow } from './mount-guard.js';
import { cleanEnvironment, PROJECT, type ProgramResult, runProgram } from './run-program.js';

export type TransportName = 'kernel' | 'fuse-native';

/** Both channels; every test of the exposed file runs over each. */
export const TRANSPORTS: readonly TransportName[] = ['kernel', 'fuse-native'];

/** What a channel cannot do, so that tests expect it (native-notes says why). */
export const ABILITIES = {
  kernel: { holes: true },
  // libfuse 2 has neither fallocate nor lseek.
  'fuse-native': { holes: false },
} as const;

const DAEMON = join(PROJECT, 'dist/daemon/main.js');
const CLI = join(PROJECT, 'dist/cli/main.js');
/** Commands that hand descriptors on, or talk with a terminal. */
const OF_THEIR_OWN: ReadonlySet<string> = new Set(['daemon', 'run', 'console']);
const STOP_TIMEOUT_MS = 60_000;
/** Without its mount a daemon ends by itself. */
const ORPHAN_ENDS_MS = 20_000;
/** A test says where everything is; what its caller's environment says counts for nothing. */
const NOWHERE = { LAYERDISK_STORE: undefined, LAYERDISK_SOCKET: undefined };

export interface DaemonOptions {
  readonly transport?: TransportName;
  /** Store in another place than the test's folder. */
  readonly store?: string;
  readonly mountpoint?: string;
  readonly socket?: string;
  /**
   * Whether a supervisor starts it anew when it dies; without one, `kill` leaves a dead mount, and
   * `pid` is the daemon's own. Default false.
   */
  readonly supervise?: boolean;
  /** Another program than the compiled one. */
  readonly program?: string;
  /** More arguments for the daemon. */
  readonly args?: readonly string[];
  /** A command that runs the command that follows it: `setpriv` with its options, say. */
  readonly through?: readonly string[];
}

export interface CliResult extends ProgramResult {
  /** The one JSON document on standard output. */
  json<T>(): T;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string;
  readonly cwd?: string;
  readonly user?: { readonly uid: number; readonly gid: number };
}

/** Runs the command line with these arguments alone. */
export async function runCli(
  args: readonly string[],
  options: CliOptions = {},
): Promise<CliResult> {
  const { user, env, ...rest } = options;
  // Another user has neither this one's home folder nor its places.
  const home = { HOME: '/nonexistent', XDG_CONFIG_HOME: undefined, XDG_RUNTIME_DIR: undefined };
  const result = await runProgram('node', [CLI, ...args], {
    ...rest,
    env: { ...NOWHERE, ...(user === undefined ? {} : home), ...env },
    ...user,
  });
  return { ...result, json: () => JSON.parse(result.stdout) };
}

/** What the daemon said when it would not start: its one line on the readiness pipe. */
export class StartRefused extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(error: { code: string; message: string; hint?: string }) {
    super(error.message);
    this.code = error.code;
    this.hint = error.hint;
  }
}

export class TestDaemon {
  /** Everything of this test lies below: also the place for images, mounts and copies. */
  readonly folder: string;
  readonly store: string;
  readonly socket: string;
  readonly mountpoint: string;
  readonly transport: TransportName;
  readonly #options: DaemonOptions;
  readonly #shell: CliShell;
  #child: ChildProcess | undefined;
  #log = '';
  readonly #logs: (Readable | null)[] = [];

  constructor(folder: string, options: DaemonOptions) {
    this.folder = folder;
    this.store = options.store ?? join(folder, 'store');
    this.socket = options.socket ?? join(folder, 'control.sock');
    this.mountpoint = options.mountpoint ?? join(folder, 'mnt');
    this.transport = options.transport ?? 'kernel';
    this.#options = options;
    this.#shell = new CliShell(cleanEnvironment({ ...NOWHERE, ...this.#places }));
  }

  get #places() {
    return { LAYERDISK_STORE: this.store, LAYERDISK_SOCKET: this.socket };
  }

  get pid(): number {
    const pid = this.#child?.pid;
    if (pid === undefined) throw new Error('the daemon does not run');
    return pid;
  }

  /** What it wrote to its log so far. */
  get log(): string {
    return this.#log;
  }

  #arguments(): string[] {
    return [
      this.#options.program ?? DAEMON,
      ...['--store', this.store],
      ...['--socket', this.socket],
      ...['--mountpoint', this.mountpoint],
      ...['--transport', this.transport],
      ...['--ready-fd', '3'],
      ...(this.#options.supervise === true ? [] : ['--no-supervise']),
      ...(this.#options.args ?? []),
    ];
  }

  /** @throws StartRefused with the daemon's own words; Error when it ended without any. */
  async start(): Promise<void> {
    const { through = [] } = this.#options;
    const command = [...through, 'node', ...this.#arguments()];
    const child = spawn('env', ['-u', 'NODE_OPTIONS', ...command], {
      cwd: '/',
      env: cleanEnvironment(NOWHERE),
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.#logs.push(child.stdout, child.stderr);
    const note = (chunk: Buffer) => {
      this.#log = `${this.#log}${chunk.toString('utf8')}`.slice(-100_000);
    };
    child.stdout?.on('data', note);
    child.stderr?.on('data', note);
    const line = await firstLine(child.stdio[3] as Readable, child);
    const word = parseReady(line);
    if (word?.ready === true) return;
    await this.#ended();
    if (word?.error !== undefined) throw new StartRefused(word.error);
    throw new Error(`the daemon ended without a word\n${this.#log}`);
  }

  /** Asks it to stop and waits until it has. */
  async stop(): Promise<void> {
    if (this.#child === undefined) return;
    this.#child.kill('SIGTERM');
    await this.#ended();
  }

  /** Waits until it has ended by itself. @returns its exit code. */
  async ended(): Promise<number | null> {
    const child = this.#child;
    await this.#ended();
    return child?.exitCode ?? null;
  }

  /**
   * The process that serves now, or did last: the one that took the store's lock. Asks nobody, so
   * that it works at any moment.
   */
  get servingPid(): number {
    return (JSON.parse(readFileSync(join(this.store, 'lock'), 'utf8')) as { pid: number }).pid;
  }

  /** Ends it as a crash would. The mount stays behind, dead. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#ended();
  }

  /** Waits for its end; one that does not come is forced, and said. */
  async #ended(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const timer = setTimeout(() => {
      this.#log += '\nthe test had to kill it';
      child.kill('SIGKILL');
    }, STOP_TIMEOUT_MS);
    await ended;
    clearTimeout(timer);
  }

  /** Runs `layerdisk ARGS` against this daemon, in a process of its own. */
  cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
    return runCli(args, { ...options, env: { ...this.#places, ...options.env } });
  }

  /**
   * The same with the same answer, but in a process that stays, where that makes no difference and
   * nothing else is under way there.
   */
  async quick(args: readonly string[]): Promise<CliResult> {
    if (this.#shell.busy || OF_THEIR_OWN.has(args[0] ?? '')) return this.cli(args);
    const result = await this.#shell.run(args);
    return { ...result, json: () => JSON.parse(result.stdout) };
  }

  /**
   * Runs `layerdisk ARGS`, which must succeed, and answers its standard output without the last
   * newline.
   */
  async ok(...args: string[]): Promise<string> {
    const result = await this.quick(args);
    if (result.code !== 0) {
      throw new Error(`layerdisk ${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    }
    return result.stdout.trimEnd();
  }

  /** Runs `layerdisk ARGS --json`, which must succeed, and answers the document. */
  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, '--json')) as T;
  }

  /** The raw file of a disk, as the design names it. */
  rawFile(vm: string, snapshot?: string, disk = 'disk0'): string {
    const folder = snapshot === undefined ? [vm] : [vm, 'snapshots', snapshot];
    return join(this.mountpoint, ...folder, `${disk}.raw`);
  }

  /** Stops or kills it, and takes away all that it or the test left in the folder. */
  async clear(): Promise<void> {
    await this.#shell.close();
    await releaseBelow(this.folder);
    await this.stop();
    const orphan = await this.#endOrphan();
    // Whoever still has the other end would keep this process.
    for (const log of this.#logs) log?.destroy();
    await releaseBelow(this.folder);
    const left = mountsBelow(this.folder);
    // Never remove files through a mount.
    if (left.length > 0) throw new Error(`still mounted: ${left.join(', ')}`);
    await rm(this.folder, { recursive: true, force: true });
    if (orphan !== undefined) throw new Error(`the test left daemon ${orphan} behind`);
  }

  /** Ends a daemon that goes on without its supervisor. @returns its pid if there was one. */
  async #endOrphan(): Promise<number | undefined> {
    const end = performance.now() + ORPHAN_ENDS_MS;
    let pid = this.#livingPid();
    while (pid !== undefined && performance.now() < end) {
      await sleep(100);
      pid = this.#livingPid();
    }
    if (pid !== undefined) process.kill(pid, 'SIGKILL');
    return pid;
  }

  /** Of the daemon that serves this mountpoint: another one may have the same store. */
  #livingPid(): number | undefined {
    try {
      const pid = this.servingPid;
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.includes(this.mountpoint) ? pid : undefined;
    } catch {
      // No store, or no such process: there is none.
      return undefined;
    }
  }
}

/** A daemon that is ready, in a folder of its own; all of it is gone when `t` ends. */
export async function startDaemon(t: Test, options: DaemonOptions = {}): Promise<TestDaemon> {
  const daemon = await prepareDaemon(t, options);
  await daemon.start();
  return daemon;
}

/** The same, not started yet. */
export async function prepareDaemon(t: Test, options: DaemonOptions = {}): Promise<TestDaemon> {
  const folder = await mkdtemp(join(tmpdir(), 'layerdisk-daemon-'));
  const daemon = new TestDaemon(folder, options);
  t.teardown(async () => {
    if (!t.passing()) t.comment(`log of the daemon:\n${daemon.log}`);
    await daemon.clear();
  });
  return daemon;
}

/** The first line on the pipe; what there is when the process ends before it is whole. */
function firstLine(pipe: Readable, child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    pipe.setEncoding('utf8');
    pipe.on('data', (chunk: string) => {
      text += chunk;
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
    pipe.once('close', () => resolve(text));
    child.once('error', reject);
  });
}

type Ready = { ready?: boolean; error?: { code: string; message: string; hint?: string } };

function parseReady(line: string): Ready | undefined {
  try {
    return JSON.parse(line) as Ready;
  } catch {
    // Nothing, or not the agreed line: the caller tells with the log.
    return undefined;
  }
}
