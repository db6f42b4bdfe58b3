/**
 * The supervisor: starts the daemon, holds what must outlive it, and starts the next one when it
 * dies. The kernel keeps the mount as long as its descriptor is open here, so whoever uses the
 * mount waits for the next daemon instead of getting errors.
 *
 * It does next to nothing itself, so that it has no reason to die: it reads no image, serves no
 * request and touches no file of the store.
 */
import { closeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskError, type DiskErrorJson } from '../common/errors.js';
import { canResend, type Negotiated } from '../transport/kernel/channel.js';
import { unmountKernelChannel } from '../transport/mount.js';
import { DaemonLife, type LifeEnd } from './daemon-life.js';
import { logPlainly } from './plain-log.js';
import { announce, type ReadyLine } from './ready-line.js';
import { Spares } from './spares.js';
import {
  type DaemonWord,
  FIRST_KEPT_FD,
  KEPT,
  type KeptName,
  type MountFacts,
} from './supervision.js';

/** So many faults in a row, none of which shows that starting works: the mount is given up. */
const MOST_FAILURES = 5;
/** Somebody else's SIGKILL before a daemon is ready says little: so many count as one fault. */
const KILLS_PER_FAILURE = 5;
/** A daemon that crashes by itself after this long worked, and does not count as one of those. */
const SOUND_MS = 10_000;
/** Before the second start in a row, milliseconds; doubled for each further one. */
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;

export interface SupervisorOptions {
  /** The daemon's program, read anew at each start, and its arguments. */
  readonly program: string;
  readonly args: readonly string[];
  /** Where to say that the daemon is ready: a descriptor. */
  readonly readyFd: number | undefined;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #kept = new Map<KeptName, number>();
  readonly #spares = new Spares(() => this.#load());
  readonly #stop = new AbortController();
  #mount: MountFacts | undefined;
  #negotiated: Negotiated | undefined;
  #generation = 0;
  #failures = 0;
  #kills = 0;
  #life: DaemonLife | undefined;
  #hasAnnounced = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Runs daemons until one ends in order, or none will start. @returns the exit code. */
  async run(): Promise<number> {
    const onSignal = (signal: NodeJS.Signals): void => {
      logPlainly('info', `${signal}: ending`, { part: 'supervisor' });
      this.#stop.abort();
      this.#life?.stop();
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
    // The terminal is gone; the daemon is not.
    process.on('SIGHUP', () => undefined);
    for (;;) {
      const end = await this.#live();
      const code = await this.#judge(end);
      if (code === undefined) continue;
      await this.#spares.discard();
      return code;
    }
  }

  #live(): Promise<LifeEnd> {
    const life = this.#spares.take();
    this.#life = life;
    const names = KEPT.filter((name) => this.#kept.has(name));
    life.begin({
      supervisorPid: process.pid,
      generation: this.#generation,
      kept: Object.fromEntries(names.map((name, index) => [name, FIRST_KEPT_FD + index])),
      ...(this.#mount === undefined ? {} : { mount: this.#mount }),
      ...(this.#negotiated === undefined ? {} : { negotiated: this.#negotiated }),
    });
    // Asked for while none was there that could end in order.
    if (this.#stop.signal.aborted) life.stop();
    // Deaths may come in a row: the one after it need not wait until it is ready.
    this.#prepareSpares();
    return life.over;
  }

  /** A daemon that has all descriptors which are kept now, loads its program, and waits. */
  #load(): DaemonLife {
    const { program, args } = this.#options;
    return new DaemonLife({
      program,
      args,
      keptFds: KEPT.flatMap((name) => this.#kept.get(name) ?? []),
      hear: (word, fd) => this.#hear(word, fd),
    });
  }

  #prepareSpares(): void {
    if (this.#kept.has('fuse') && !this.#stop.signal.aborted) this.#spares.fill();
  }

  #hear(word: DaemonWord, fd: number | undefined): void {
    if (word.keep !== undefined && fd !== undefined) {
      this.#drop(word.keep);
      this.#kept.set(word.keep, fd);
      // They would begin without it.
      void this.#spares.discard();
    }
    this.#mount = word.mount ?? this.#mount;
    this.#negotiated = word.negotiated ?? this.#negotiated;
    if (word.renew === true) void this.#renew();
    if (word.ready !== true) return;
    this.#announce({ ready: true });
    this.#prepareSpares();
  }

  /** The program may be another one by now. */
  async #renew(): Promise<void> {
    const life = this.#life;
    const spare = await this.#spares.renew();
    const isWarm = await spare.warm;
    life?.tellRenewed(isWarm ? undefined : (await spare.over).how);
  }

  /** What follows from the end of a daemon. @returns the exit code when nothing more does. */
  async #judge(end: LifeEnd): Promise<number | undefined> {
    if (end.ended === 'restart') {
      logPlainly('info', 'starting the daemon anew, as asked', { part: 'supervisor' });
      this.#generation += 1;
      return undefined;
    }
    if (end.ended !== undefined) return end.ended === 'stopped' ? 0 : 1;
    if (!this.#hasAnnounced) {
      await this.#giveUp();
      this.#announce({ error: end.refusal ?? silentDeath(end) });
      return 1;
    }
    logPlainly('error', `the daemon died (${end.how})`, { part: 'supervisor' });
    this.#spares.alert();
    if (this.#stop.signal.aborted || !this.#kept.has('fuse')) return await this.#giveUp();
    this.#count(end);
    if (this.#failures + Math.floor(this.#kills / KILLS_PER_FAILURE) >= MOST_FAILURES) {
      const count = this.#failures + this.#kills;
      const message = `the daemon died ${count} times in a row: giving the mount up`;
      logPlainly('error', message, { part: 'supervisor', hint: 'layerdisk daemon start' });
      return await this.#giveUp();
    }
    await this.#prepareNext();
    return this.#stop.signal.aborted ? await this.#giveUp() : undefined;
  }

  #count(end: LifeEnd): void {
    const worked = end.wasReady && (end.killed || end.readyMs >= SOUND_MS);
    if (worked) this.#failures = this.#kills = 0;
    else if (end.killed) this.#kills += 1;
    else this.#failures += 1;
    this.#generation += 1;
  }

  async #prepareNext(): Promise<void> {
    if (this.#negotiated !== undefined && !canResend(this.#negotiated)) {
      const message = 'this kernel cannot send requests again (Linux 6.9 and later can)';
      const outcome = 'whatever had disks open got errors, and the mount is made anew';
      logPlainly('warn', `${message}: ${outcome}`, { part: 'supervisor' });
      await this.#spares.discard();
      await this.#unmount();
    }
    if (this.#failures === 0) return;
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#failures - 1));
    const { signal } = this.#stop;
    await delay(pause, undefined, { signal }).catch(() => undefined);
  }

  /** Leaves nothing mounted: whoever has a disk open gets errors. @returns the exit code. */
  async #giveUp(): Promise<number> {
    await this.#unmount();
    this.#drop('lock');
    this.#drop('folder');
    return 1;
  }

  async #unmount(): Promise<void> {
    const fd = this.#kept.get('fuse');
    if (fd !== undefined && this.#mount !== undefined) {
      try {
        await unmountKernelChannel({ ...this.#mount, fd }, true);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        logPlainly('error', `cannot unmount: ${message}`, { part: 'supervisor' });
      }
    }
    for (const name of ['fuse', 'handles', 'suspects'] as const) this.#drop(name);
    this.#mount = undefined;
    this.#negotiated = undefined;
  }

  #drop(name: KeptName): void {
    const fd = this.#kept.get(name);
    if (fd === undefined) return;
    this.#kept.delete(name);
    closeSync(fd);
  }

  /** Tells whoever started us, once. */
  #announce(message: ReadyLine): void {
    const isFirst = !this.#hasAnnounced;
    this.#hasAnnounced = true;
    if (isFirst) announce(this.#options.readyFd, message);
  }
}

function silentDeath({ how }: LifeEnd): DiskErrorJson {
  return new DiskError('failed', `the daemon died while it started (${how})`, {
    hint: 'its log says more',
  }).toJSON();
}
