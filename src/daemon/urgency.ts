/**
 * A daemon that takes a mount over goes before others on the CPU: whoever uses the mount waits for
 * it. Needs root; without it, it takes its turn.
 */
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { namesIn } from '../host/kernel-files.js';

/** A nice value: of two that want one CPU, this one gets nine tenths. */
const URGENT = -10;

/** A start that takes longer has a reason that more CPU does not mend. */
const LONGEST_MS = 5000;

/**
 * Puts a process that leads its session, and all threads that it has, before others.
 * @returns what has it take its turn again, which it does by itself after a while.
 */
export function hurry(pid: number): () => void {
  const usual = getPriority();
  prioritize(pid, URGENT, Math.min(URGENT, usual));
  const end = setTimeout(easeOff, LONGEST_MS);
  let isOver = false;
  function easeOff(): void {
    clearTimeout(end);
    if (!isOver) prioritize(pid, 0, usual);
    isOver = true;
  }
  return easeOff;
}

/** Where the kernel shares the CPU among sessions first, threads only have a say within theirs. */
function prioritize(pid: number, session: number, threads: number): void {
  attempt(() => writeFileSync(`/proc/${pid}/autogroup`, String(session)));
  for (const thread of namesIn(`/proc/${pid}/task`)) {
    attempt(() => setPriority(Number(thread), threads));
  }
}

function attempt(set: () => void): void {
  try {
    set();
  } catch {
    // Not ours to set, unknown to this kernel, or gone.
  }
}
