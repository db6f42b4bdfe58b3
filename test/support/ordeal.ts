/** Work that goes on above a daemon that dies and comes back, and what it saw. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import { Tally } from '../torture/tally.js';
import type { TestDaemon } from './daemon.js';
import { createRandom, type Random } from './random.js';
import { runProgram } from './run-program.js';
import { startProgram } from './working-program.js';

/** For a program that waits for the disk. */
const PATIENCE_MS = 120_000;
const POLL_MS = 50;
const EXERCISER = new URL('./random-exerciser.mjs', import.meta.url);

export interface OrdealOptions {
  readonly seed: number;
  /** A round of fio, so that none goes on for long when everything else is over. */
  readonly fioSeconds: number;
}

/** Goes on until its `end`; each party takes its random numbers from a row of its own. */
export class Ordeal {
  readonly t: Test;
  readonly daemon: TestDaemon;
  readonly tally: Tally;
  readonly #options: OrdealOptions;
  readonly #end = new AbortController();
  #parties = 0;
  #longest = { ms: 0, program: 'none' };

  constructor(t: Test, daemon: TestDaemon, options: OrdealOptions) {
    this.t = t;
    this.daemon = daemon;
    this.#options = options;
    this.tally = new Tally(t);
    // Also when the test runs out of time: nothing goes on, and nobody is killed any more.
    t.teardown(() => this.end());
  }

  end(): void {
    this.#end.abort();
  }

  readonly isOver = (): boolean => this.#end.signal.aborted;

  /** Resolves at the end. */
  readonly whenOver = new Promise<void>((resolve) => {
    this.#end.signal.addEventListener('abort', () => resolve(), { once: true });
  });

  get seed(): number {
    return this.#options.seed;
  }

  /** Of the next party: parties must be made in one order. */
  random(): Random {
    this.#parties += 1;
    return createRandom(this.#options.seed + this.#parties);
  }

  /** fio writes and verifies, round after round. */
  async runFio(name: string, file: string, options: readonly string[]): Promise<void> {
    const random = this.random();
    const { fioSeconds } = this.#options;
    const args = [
      ...[`--name=${name}`, `--filename=${file}`, '--rw=randwrite', '--bsrange=512-64k'],
      ...['--blockalign=512', '--verify=crc32c', '--verify_fatal=1', '--verify_backlog=64'],
      ...['--verify_state_save=0', '--fallocate=none', '--overwrite=1'],
      // One process, so that none of it outlives a kill.
      ...['--thread', '--output-format=json', '--loops=1000000', '--size=16m', ...options],
      ...['--time_based', `--runtime=${fioSeconds}`],
    ];
    const stop = new AbortController();
    this.t.teardown(() => stop.abort());
    while (!this.isOver()) {
      const timeoutMs = PATIENCE_MS + fioSeconds * 1000;
      const place = { cwd: this.daemon.folder, timeoutMs, signal: stop.signal };
      const seed = `--randseed=${1 + random.below(2 ** 31)}`;
      const result = await runProgram('fio', [...args, seed], place);
      if (stop.signal.aborted) return;
      if (result.code !== 0) {
        this.tally.lost(`fio (${name}, ${seed}): ${result.stdout}${result.stderr}`);
        return;
      }
      this.#noteStall(`fio on ${name}`, longestOf(result.stdout));
    }
  }

  /** Random operations on a raw file of `size` bytes, each compared with a model. */
  async runExerciser(vm: string, size: number): Promise<void> {
    const seed = 1 + this.random().below(2 ** 31);
    const args = [this.daemon.rawFile(vm), String(size), String(seed)];
    const program = await startProgram(this.t, EXERCISER, args);
    while (!this.isOver()) await sleep(POLL_MS);
    const said = await program.stop();
    const [slowest = '', operations] = said.split('\n').slice(-3);
    this.t.comment(`${operations} random operations, ${slowest}`);
    this.noteSlowest('the exerciser', slowest);
  }

  #noteStall(program: string, milliseconds: number): void {
    const ms = Math.round(milliseconds);
    if (ms > this.#longest.ms) this.#longest = { ms, program };
  }

  /** @param text `slowest N ms`, as programs of the tests' own say. */
  noteSlowest(program: string, text: string): void {
    this.#noteStall(program, Number(/\d+/.exec(text)?.[0]));
  }

  /** For the line of figures. */
  get longestRequest(): Readonly<Record<string, string | number>> {
    return { 'longest request, ms': this.#longest.ms, 'seen by': this.#longest.program };
  }
}

/** The longest time that a request of fio took, ms. */
function longestOf(json: string): number {
  const { jobs } = JSON.parse(json.slice(json.indexOf('{'))) as {
    jobs: Record<'read' | 'write', { clat_ns: { max: number } }>[];
  };
  return (
    Math.max(...jobs.flatMap(({ read, write }) => [read.clat_ns.max, write.clat_ns.max])) / 1e6
  );
}
