/** Starting, killing and asking `store-worker.mjs`, the store in a process of its own. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { cleanEnvironment, type ProgramResult, runProgram } from '../support/run-program.js';

const WORKER = fileURLToPath(new URL('./store-worker.mjs', import.meta.url));
/** Exit status of a worker that found its store wrong. */
const WRONG = 3;

export interface Place {
  readonly store: string;
  /** Where it survives whatever happens to the store. */
  readonly journal: string;
  /** What the worker before died of. */
  readonly death: 'process' | 'power';
}

export class WorkerProcess {
  /** What it said on standard error. */
  said = '';
  /** Exit status; null after a signal. */
  status: number | null | undefined;
  readonly ended: Promise<void>;
  readonly #child;
  #isWorking = false;
  #wake: () => void = () => undefined;

  /** Begins random work on a store, once that was found right. */
  constructor({ store, journal, death }: Place, seed: number) {
    const args = [WORKER, store, journal, death, String(seed)];
    this.#child = spawn('env', ['-u', 'NODE_OPTIONS', 'node', ...args], {
      env: cleanEnvironment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stdout.on('data', () => {
      this.#isWorking = true;
      this.#wake();
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.said += chunk.toString();
    });
    this.ended = new Promise((resolve) => {
      this.#child.once('close', (code) => {
        this.status = code;
        this.#wake();
        resolve();
      });
    });
  }

  /** Waits for the end of its comparison. @returns what is wrong, undefined when it works. */
  async begun(): Promise<string | undefined> {
    if (!this.#isWorking && this.status === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#isWorking ? undefined : this.said.trim() || `it ended with ${this.status}`;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended;
  }
}

/** A worker with random work, killed when `t` ends unless done before. */
export function startWorker(t: Test, place: Place, seed: number): WorkerProcess {
  const worker = new WorkerProcess(place, seed);
  t.teardown(() => worker.kill());
  return worker;
}

/**
 * Does one operation, or `verify`.
 * @param through a command that runs the command that follows it, with its options.
 */
export function runWorker(
  { store, journal, death }: Place,
  operation: string,
  through: readonly string[] = [],
): Promise<ProgramResult> {
  const args = [WORKER, store, journal, death, '1', operation];
  const [command = 'node', ...rest] = [...through, 'node', ...args];
  // One thread for the asynchronous calls, so that they are counted in one row.
  return runProgram(command, rest, { env: { UV_THREADPOOL_SIZE: '1' } });
}

/** @returns what is wrong with a store, undefined when nothing is. */
export async function problemOf(place: Place): Promise<string | undefined> {
  const { code, signal, stderr } = await runWorker(place, 'verify');
  if (code === 0) return undefined;
  return code === WRONG ? stderr.trim() : `the store does not open (${signal ?? code}): ${stderr}`;
}
