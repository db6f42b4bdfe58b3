/** One daemon process as its supervisor sees it: loaded, put to work, heard, ended. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { DiskErrorJson } from '../common/errors.js';
import { receiveDescriptor } from '../storage/descriptor-passing.js';
import { socketPair } from '../storage/libc.js';
import { isStuckInOwnMount } from './own-mount.js';
import {
  type DaemonWord,
  type Handover,
  LINK_FD,
  type OrderlyEnd,
  type SupervisorWord,
} from './supervision.js';
import { hurry } from './urgency.js';
import { V8_FLAGS } from './v8-flags.js';

/** How often a dead process is looked for that cannot go away. */
const STUCK_CHECK_MS = 500;

export interface LifeEnd {
  /** For people: `SIGKILL`, `exit code 1`. */
  readonly how: string;
  /** Ended by somebody else's SIGKILL, not by a fault of its own. */
  readonly killed: boolean;
  readonly wasReady: boolean;
  /** How long it lived after it was ready. */
  readonly readyMs: number;
  /** Undefined when it died. */
  readonly ended: OrderlyEnd | undefined;
  /** Why it did not start. */
  readonly refusal: DiskErrorJson | undefined;
}

export interface LifeOptions {
  readonly program: string;
  readonly args: readonly string[];
  /** They get the numbers from `FIRST_KEPT_FD` on. */
  readonly keptFds: readonly number[];
  /** Told what it says; with a descriptor where it sent one. */
  readonly hear: (word: DaemonWord, fd: number | undefined) => void;
}

/**
 * Threads of the pool that syncs wait on: those of one change, which go on at the same time, leave
 * some for other changes and for what waits for an answer of our own mount.
 */
const POOL_THREADS = 8;

interface Started {
  readonly child: ChildProcess;
  /** The supervisor's end of the socket for descriptors. */
  readonly ours: number;
}

/** @throws Error when the host has not what one more process takes. */
function startProcess({ program, args, keptFds }: LifeOptions): Started {
  const [theirs, ours] = socketPair();
  try {
    const child = spawn(process.execPath, [...V8_FLAGS, program, ...args, '--supervised'], {
      // A ctrl-C at the terminal reaches the supervisor alone, which passes it on once.
      detached: true,
      env: { UV_THREADPOOL_SIZE: String(POOL_THREADS), ...process.env },
      stdio: ['ignore', 'inherit', 'inherit', 'pipe', theirs, ...keptFds],
    });
    return { child, ours };
  } catch (error) {
    closeSync(ours);
    throw error;
  } finally {
    closeSync(theirs);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export class DaemonLife {
  readonly over: Promise<LifeEnd>;
  /** Whether its program could be loaded. */
  readonly warm: Promise<boolean>;
  /** Undefined when there could be no process. */
  readonly #child: ChildProcess | undefined;
  #mountpoint: string | undefined;
  #readyAt: number | undefined;
  #ended: OrderlyEnd | undefined;
  #refusal: DiskErrorJson | undefined;
  #crash: string | undefined;
  #resolveWarm: (isWarm: boolean) => void = () => undefined;
  #easeOff: () => void = () => undefined;
  /** Loading, and not put to work. */
  #isLoading = true;
  #isHurried = false;
  #takesOver = false;
  #isToStop = false;

  constructor(options: LifeOptions) {
    this.warm = new Promise((resolve) => {
      this.#resolveWarm = resolve;
    });
    let started: Started;
    try {
      started = startProcess(options);
    } catch (error) {
      // The host lacks memory or descriptors for one more, perhaps only now: a fault like others.
      this.over = Promise.resolve(this.#describe(messageOf(error)));
      this.#resolveWarm(false);
      return;
    }
    const { child, ours } = started;
    this.#child = child;
    const link = this.#link;
    // It may die while something is said to it: that is heard of below.
    link?.on('error', () => undefined);
    if (link) {
      const lines = createInterface({ input: link });
      lines.on('error', () => undefined);
      lines.on('line', (line) => {
        const word = JSON.parse(line) as DaemonWord;
        this.#note(word);
        options.hear(word, word.keep === undefined ? undefined : receiveDescriptor(ours));
      });
    }
    this.over = this.#untilGone(child).finally(() => {
      this.#easeOff();
      closeSync(ours);
      link?.destroy();
      this.#resolveWarm(false);
    });
  }

  get #link(): Socket | undefined {
    // Whatever its type says, there is no `stdio` where descriptors were what lacked.
    const stdio: ChildProcess['stdio'] | undefined = this.#child?.stdio;
    return (stdio?.[LINK_FD] as Socket | null | undefined) ?? undefined;
  }

  /** Puts it to work. */
  begin(handover: Handover): void {
    this.#mountpoint = handover.mount?.mountpoint;
    this.#takesOver = handover.mount !== undefined;
    this.#say(handover);
    this.#isLoading = false;
    if (this.#takesOver) this.#hurry();
  }

  hurryUp(): void {
    if (this.#isLoading && !this.#isHurried) this.#hurry();
  }

  #hurry(): void {
    this.#isHurried = true;
    this.#easeOff();
    const pid = this.#child?.pid;
    if (pid !== undefined) this.#easeOff = hurry(pid);
  }

  /** Tells it whether the next one is loaded. */
  tellRenewed(problem: string | undefined): void {
    this.#say({ renewed: problem === undefined ? {} : { problem } });
  }

  #say(word: Handover | SupervisorWord): void {
    this.#link?.write(`${JSON.stringify(word)}\n`);
  }

  /** Ends it before it was put to work. */
  async discard(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.over;
  }

  /**
   * Asks for an orderly end. One that is not ready yet has none, but for one that takes a mount
   * over: whoever uses that gets the same patience, unless it is asked for again.
   */
  stop(): void {
    const isFirst = !this.#isToStop;
    this.#isToStop = true;
    if (this.#readyAt !== undefined) this.#say({ stop: true });
    else if (!isFirst || !this.#takesOver) this.#child?.kill('SIGTERM');
  }

  #note(word: DaemonWord): void {
    if (word.warm === true) {
      this.#resolveWarm(true);
      if (this.#isLoading) this.#easeOff();
      this.#isLoading = false;
    }
    this.#mountpoint = word.mount?.mountpoint ?? this.#mountpoint;
    if (word.ready === true) {
      this.#readyAt = performance.now();
      if (this.#isToStop) this.#say({ stop: true });
      this.#easeOff();
    }
    this.#ended = word.ended ?? this.#ended;
    this.#refusal = word.error ?? this.#refusal;
    this.#crash = word.crash ?? this.#crash;
  }

  /** Resolves when its last words are heard and no thread of it can touch the store any more. */
  #untilGone(child: ChildProcess): Promise<LifeEnd> {
    return new Promise((resolve) => {
      const check = setInterval(() => {
        const { pid } = child;
        if (this.#mountpoint === undefined || pid === undefined) return;
        if (isStuckInOwnMount(pid, this.#mountpoint)) done('killed while it used its own mount');
      }, STUCK_CHECK_MS);
      const done = (how: string): void => {
        clearInterval(check);
        resolve(this.#describe(how));
      };
      child.once('error', (error) => done(error.message));
      // Not 'exit': what it said before may still be in the pipe.
      child.once('close', (code, signal) => done(signal ?? `exit code ${code}`));
    });
  }

  #describe(how: string): LifeEnd {
    const readyAt = this.#readyAt;
    const fault = this.#crash ?? this.#refusal?.message;
    return {
      how: fault ?? how,
      killed: fault === undefined && /^(SIGKILL|killed)/.test(how),
      wasReady: readyAt !== undefined,
      readyMs: readyAt === undefined ? 0 : performance.now() - readyAt,
      ended: this.#ended,
      refusal: this.#refusal,
    };
  }
}
