/**
 * A dead process that does not go away: threads of it wait, in the kernel, for the mount that it
 * served itself (a flush, an invalidation, an unmount). Nobody will answer them before the next
 * daemon does, so that one must not wait for the end of this one.
 */
import { targetOf, textOf, threadsOfDead } from '../host/kernel-files.js';

/** What the kernel calls the wait for an answer from a FUSE daemon. */
const WAITS_FOR_ANSWER = /^(request_wait_answer|fuse_)/;
/** umount2(2): the path says where, but only its address can be seen. */
const UMOUNT_NUMBERS: Readonly<Record<string, string>> = { x64: '166', arm64: '39' };

/**
 * Whether all that is left of a process are such threads. One that may still write to the store
 * counts against it: it ends by itself, and before that nobody else may touch the store.
 */
export function isStuckInOwnMount(pid: number, mountpoint: string): boolean {
  const threads = threadsOfDead(pid) ?? [];
  return (
    threads.length > 0 && threads.every((each) => waits(`/proc/${pid}/task/${each}`, mountpoint))
  );
}

function waits(task: string, mountpoint: string): boolean {
  if (WAITS_FOR_ANSWER.test(textOf(`${task}/wchan`) ?? '')) return true;
  // Number and arguments; `running` for a thread that does not wait.
  const [call, first] = textOf(`${task}/syscall`)?.split(' ') ?? [];
  if (call === undefined || first === undefined) return false;
  if (call === UMOUNT_NUMBERS[process.arch]) return true;
  const file = targetOf(`${task}/fd/${Number(first)}`) ?? '';
  return file === '/dev/fuse' || file.startsWith(`${mountpoint}/`) || /^\/dev\/loop\d/.test(file);
}
