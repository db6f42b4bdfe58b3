/**
 * Whom others wait for goes before them on the CPU: a daemon that takes a mount over, and the
 * thread that moves heads, while file systems above them stand still. Needs root; without it, they
 * take their turn.
 */
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { namesIn, textOf } from '../host/kernel-files.js';

/** A nice value: of two that want one CPU, this one gets nine tenths. */
const URGENT = -10;

/** What takes longer has a reason that more CPU does not mend. */
const LONGEST_MS = 5000;

/**
 * Puts a process that leads its session, and all threads that it has, before others.
 * @returns what has it take its turn again, which it does by itself after a while.
 */
export function hurry(pid: number): () => void {
  return prefer(pid, threadsOf(pid));
}

/**
 * Tasks of this process's main thread that go before others, its own I/O threads included: where
 * those have as much to do as they can get, it would wait some milliseconds for its turn at each
 * step.
 */
export class Precedence {
  #tasks = 0;
  #easeOff = (): void => {};

  async during<T>(task: () => Promise<T>): Promise<T> {
    if (this.#tasks === 0) this.#easeOff = prefer(process.pid, [process.pid]);
    this.#tasks += 1;
    try {
      return await task();
    } finally {
      this.#tasks -= 1;
      if (this.#tasks === 0) this.#easeOff();
    }
  }
}

function prefer(pid: number, threads: readonly number[]): () => void {
  const usual = getPriority();
  prioritize(pid, threads, { session: URGENT, nice: Math.min(URGENT, usual) });
  const end = setTimeout(easeOff, LONGEST_MS);
  let isOver = false;
  function easeOff(): void {
    clearTimeout(end);
    // Those that were made meanwhile, too: a thread begins with the nice value of its maker.
    if (!isOver) prioritize(pid, threadsOf(pid), { session: 0, nice: usual });
    isOver = true;
  }
  return easeOff;
}

function threadsOf(pid: number): number[] {
  return namesIn(`/proc/${pid}/task`).map(Number);
}

/** Where the kernel shares the CPU among sessions first, threads only have a say within theirs. */
function prioritize(
  pid: number,
  threads: readonly number[],
  { session, nice }: { readonly session: number; readonly nice: number },
): void {
  if (leadsSession(pid)) {
    attempt(() => writeFileSync(`/proc/${pid}/autogroup`, String(session)));
  }
  for (const thread of threads) attempt(() => setPriority(thread, nice));
}

/** Or else the session is somebody's shell. */
function leadsSession(pid: number): boolean {
  const [, session] = /\) \S \d+ \d+ (\d+) /.exec(textOf(`/proc/${pid}/stat`) ?? '') ?? [];
  return session === String(pid);
}

function attempt(set: () => void): void {
  try {
    set();
  } catch {
    // Not ours to set, unknown to this kernel, or gone.
  }
}
