/** Processes told apart for sure: a number alone may belong to another one by now. Linux only. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** A process for as long as this boot lasts. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and its start (field 22 of proc(5)'s stat). */
  readonly startTicks: number;
  readonly bootId: string;
}

const POLL_MS = 50;

/** @returns undefined when no such process runs. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the name in parentheses, which may hold blanks and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended: only its parent has not heard yet.
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return { pid, startTicks: Number(fields[19]), bootId: bootId() };
  } catch {
    // It is gone, or there is no /proc: nothing that could be found again runs.
    return undefined;
  }
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** The model of the host's processor, as the kernel names it. */
export function hostProcessor(): string {
  const found = /^model name\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  return found ?? 'unknown';
}

/** Whether exactly this process still runs. */
export function isRunning(process: ProcessIdentity): boolean {
  const now = identify(process.pid);
  return now?.startTicks === process.startTicks && now.bootId === process.bootId;
}

/** @returns whether it ended within `timeoutMs`. */
export async function waitForEnd(
  process: ProcessIdentity,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (isRunning(process)) {
    if (signal?.aborted === true || performance.now() >= end) return false;
    await sleep(POLL_MS);
  }
  return true;
}
