/** Killing daemons under a supervisor, and what a test does meanwhile. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { DiskError } from '../../src/common/errors.js';
import { connect } from '../../src/control/client.js';
import type { MethodName, Params, Result } from '../../src/control/protocol.js';
import type { TestDaemon } from './daemon.js';
import { cannotServe } from './mount-guard.js';
import type { Random } from './random.js';
import { runProgram } from './run-program.js';

const POLL_MS = 10;
/** A process that loads its program uses some CPU in this time, however busy the host is. */
const SURELY_WAITS_MS = 1000;
/** Longest wait for a daemon that is not there yet. */
const PATIENCE_MS = 60_000;

/** Why this kernel sends no request again; false where it does. */
export function cannotResend(): string | false {
  const [major = 0, minor = 0] = readFileSync('/proc/sys/kernel/osrelease', 'utf8')
    .split('.')
    .map((part) => Number.parseInt(part, 10));
  return major > 6 || (major === 6 && minor >= 9) ? false : 'NOTIFY_RESEND came with Linux 6.9';
}

/** Why a mount cannot be taken over here; false where it can. */
export function cannotTakeOver(): string | false {
  return cannotServe() || cannotResend();
}

/** Waits until `look` answers something; fails after a minute. */
export async function eventually<T>(
  what: string,
  look: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`not in a minute: ${what}`);
    await sleep(POLL_MS);
  }
}

/** The daemon that serves after `former`; undefined while there is none. */
export function successor(daemon: TestDaemon, former: number): number | undefined {
  try {
    const pid = daemon.servingPid;
    return pid === former ? undefined : pid;
  } catch {
    // It is writing that down just now.
    return undefined;
  }
}

/** Clock ticks that a process has used; -1 where it is not there. */
function usedTicks(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return -1;
  }
}

/** Resolves when a spare has nothing to load any more. */
export async function spareWaits(daemon: TestDaemon): Promise<void> {
  await eventually('a spare that waits', async () => {
    const { stdout } = await runProgram('pgrep', ['-P', String(daemon.pid)]);
    const spare = stdout
      .split('\n')
      .map(Number)
      .find((pid) => pid > 0 && pid !== daemon.servingPid);
    if (spare === undefined) return undefined;
    const before = usedTicks(spare);
    await sleep(SURELY_WAITS_MS);
    return before !== -1 && usedTicks(spare) === before ? true : undefined;
  });
}

export interface Kills {
  readonly count: number;
  /** Each daemon dies at a moment of the first `2 * pauseMs` of its life. */
  readonly pauseMs: number;
  /** The moments follow from it. */
  readonly random: Random;
  /** Told of each kill. */
  readonly counted: () => void;
}

/** Of so many kills one hits a daemon that may not serve yet. */
const EARLY = 4;
/**
 * After so many kills a daemon may collect its garbage: where none lives for as long as a merge
 * takes, chains only ever grow.
 */
const REST_AFTER = 50;

/**
 * Kills the daemon that serves, again and again.
 * @param isOver ends that early.
 * @returns how long after a kill the next daemon answered, ms, where it was left to.
 */
export async function killAgainAndAgain(
  daemon: TestDaemon,
  { count, pauseMs, random, counted }: Kills,
  isOver: () => boolean,
): Promise<number[]> {
  const takeovers: number[] = [];
  for (let former = 0, kill = 0, killedAt = 0; kill < count; kill += 1) {
    const look = (): number | undefined => (isOver() ? former : successor(daemon, former));
    former = await eventually('a daemon to kill', look);
    if (kill % EARLY !== EARLY - 1) {
      await ask(daemon, 'daemon.status', {});
      if (kill > 0) takeovers.push(performance.now() - killedAt);
    }
    if (kill % REST_AFTER === REST_AFTER - 1) await ask(daemon, 'gc', {});
    await sleep(random.below(2 * pauseMs));
    if (isOver()) break;
    process.kill(former, 'SIGKILL');
    killedAt = performance.now();
    counted();
  }
  return takeovers;
}

/** What a request ends with whose daemon died, or was restarted and broke it off. */
const CUT_SHORT: ReadonlySet<string> = new Set(['unreachable', 'interrupted']);

/** Asks over a connection of its own. @returns undefined when the daemon ended meanwhile. */
export async function askOnce<M extends MethodName>(
  daemon: TestDaemon,
  method: M,
  params: Params<M>,
): Promise<Result<M> | undefined> {
  try {
    const client = await connect(daemon.socket);
    return await client.call(method, params).finally(() => client.close());
  } catch (error) {
    if (error instanceof DiskError && CUT_SHORT.has(error.code)) return undefined;
    throw error;
  }
}

/** Asks until some daemon answers. */
export async function ask<M extends MethodName>(
  daemon: TestDaemon,
  method: M,
  params: Params<M>,
): Promise<Result<M>> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const result = await askOnce(daemon, method, params);
    if (result !== undefined) return result;
    if (performance.now() > end) throw new Error(`${method}: no daemon answers`);
    await sleep(POLL_MS);
  }
}
