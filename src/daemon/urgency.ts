/**
 * A daemon that takes a mount over goes before others on the CPU: whoever uses the mount waits for
 * it. Needs root; without it, it takes its turn.
 */
import { writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { namesIn } from '../host/kernel-files.js';

/** A nice value: of two that want one CPU, this one gets nine tenths. */
const URGENT = -10;

/** Puts a process that leads its session, and all threads that it has, before others. */
export function hurry(pid: number): void {
  prioritize(pid, URGENT, Math.min(URGENT, getPriority()));
}

/** Has it take its turn again, as this process does. */
export function easeOff(pid: number): void {
  prioritize(pid, 0, getPriority());
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
