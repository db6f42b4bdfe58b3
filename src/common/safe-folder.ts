/** Whether a folder is one in which nobody else can put files of theirs in the place of ours. */
import { DiskError } from './errors.js';
import { shellWord } from './shell-word.js';

/** As stat(2) tells it. */
export interface FolderState {
  readonly uid: number;
  readonly mode: number;
}

export interface SafetyRules {
  /** What lies in the folder, for the error. */
  readonly what: string;
  /** How to name another folder. */
  readonly option: string;
  /** Whether a sticky folder that everyone may write to will do: files there cannot be replaced. */
  readonly stickyIsSafe: boolean;
}

const WORLD_WRITABLE = 0o002;
const STICKY = 0o1000;

/** @throws DiskError `not-permitted` for a folder of another user, or one that all may write to. */
export function requireSafeFolder(
  folder: string,
  { uid, mode }: FolderState,
  { what, option, stickyIsSafe }: SafetyRules,
): void {
  if (uid !== 0 && uid !== process.getuid?.()) {
    throw new DiskError(
      'not-permitted',
      `${folder} belongs to another user (uid ${uid}), so ${what} there is not safe`,
      { hint: `give ${option} a path in a folder of yours` },
    );
  }
  const isSticky = stickyIsSafe && (mode & STICKY) !== 0;
  if ((mode & WORLD_WRITABLE) === 0 || isSticky) return;
  throw new DiskError(
    'not-permitted',
    `${folder} may be written by everyone, so ${what} there is not safe`,
    { hint: `chmod o-w ${shellWord(folder)}, or give ${option} another path` },
  );
}

/** Of the folder of a store. */
export const STORE_SAFETY: SafetyRules = {
  what: 'a store',
  option: '--store',
  stickyIsSafe: false,
};
