/**
 * Mounting without privileges: the setuid helper fusermount3 opens /dev/fuse, mounts, and hands
 * the descriptor over.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync } from 'node:fs';
import { DiskError } from '../common/errors.js';
import { receiveDescriptor } from '../storage/descriptor-passing.js';
import { socketPair } from '../storage/libc.js';

const PROGRAM = 'fusermount3';

export interface FusermountOptions {
  readonly mountpoint: string;
  readonly allowOther: boolean;
  /** Largest read, bytes. */
  readonly maxRead: number;
}

/** Mounts and answers the descriptor. The helper talks to nobody who needs this thread. */
export function fusermount(options: FusermountOptions): number {
  const words = [
    'rw',
    'nosuid',
    'nodev',
    'fsname=layerdisk',
    'subtype=layerdisk',
    'default_permissions',
    `max_read=${options.maxRead}`,
    ...(options.allowOther ? ['allow_other'] : []),
  ];
  const [theirs, ours] = socketPair();
  try {
    const child = spawnSync(PROGRAM, ['-o', words.join(','), '--', options.mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, LC_ALL: 'C', _FUSE_COMMFD: '3' },
      encoding: 'utf8',
    });
    if (child.error !== undefined) throw missingProgram(child.error);
    if (child.status !== 0) throw helperError(options.mountpoint, child.stderr);
  } catch (error) {
    closeSync(ours);
    throw error;
  } finally {
    closeSync(theirs);
  }
  try {
    const fd = receiveDescriptor(ours);
    if (fd === undefined) {
      throw new DiskError('failed', `${PROGRAM} mounted but sent no descriptor`);
    }
    return fd;
  } finally {
    closeSync(ours);
  }
}

/**
 * Unmounts a mount of this user's. @throws an error whose code is EBUSY when it is in use and
 * not `lazy`.
 */
export async function fusermountUnmount(mountpoint: string, lazy: boolean): Promise<void> {
  const child = spawn(PROGRAM, ['-u', ...(lazy ? ['-z'] : []), '--', mountpoint], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', (error) => reject(missingProgram(error)));
    child.on('close', resolve);
  });
  if (status === 0) return;
  // The helper's exit status is 1 for everything: its message (strerror, here in English) is
  // all there is to go by.
  const busy = /busy/i.test(complaint);
  throw new DiskError(busy ? 'busy' : 'failed', firstLine(complaint), {
    errno: busy ? 'EBUSY' : 'EPERM',
  });
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0] ?? '';
}

function missingProgram(cause: Error): DiskError {
  return new DiskError('not-supported', `${PROGRAM} cannot be run`, {
    hint: 'install the fuse3 package, or run the daemon as root',
    cause,
  });
}

/** What to do about a complaint: the helper's texts are all it gives. */
const HINTS: readonly (readonly [pattern: RegExp, hint: string])[] = [
  [/user_allow_other/, 'leave out --allow-other, or put "user_allow_other" into /etc/fuse.conf'],
  [
    /failed to open \/dev\/fuse/,
    'let users open it (chmod 0666 /dev/fuse, as udev does), or run the daemon as root',
  ],
];

function helperError(mountpoint: string, complaint: string): DiskError {
  const found = HINTS.find(([pattern]) => pattern.test(complaint));
  return new DiskError('not-permitted', `${mountpoint}: ${firstLine(complaint)}`, {
    hint: found?.[1] ?? 'choose a directory that you own',
  });
}
