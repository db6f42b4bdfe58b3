/** What /proc knows of a thread whose request we hold. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { errnoName } from '../../common/errors.js';

/** Fields of /proc/PID/stat behind the program's name (proc_pid_stat(5): 9 and 31). */
const FLAGS = 9 - 3;
const PENDING_SIGNALS = 31 - 3;
/** Of the flags (linux/sched.h): it is on its way out. */
const PF_EXITING = 0x4;

/**
 * Whether a thread is being killed, and only waits for our answer to be gone. One that is not
 * there (a kernel thread that handed its request in and left) is not.
 */
export function isDying(pid: number): boolean {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    const name = errnoName(error);
    if (name === 'ENOENT' || name === 'ESRCH' || name === 'EACCES') return false;
    throw error;
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const killed = 2 ** (constants.signals.SIGKILL - 1);
  const isExiting = (Number(fields[FLAGS]) & PF_EXITING) !== 0;
  return isExiting || (Number(fields[PENDING_SIGNALS]) & killed) !== 0;
}
