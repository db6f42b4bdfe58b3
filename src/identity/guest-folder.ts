/**
 * Folders and files of a guest's file system that is mounted on the host, whose owner may have laid
 * traps in it: symbolic links that lead out of the mount, devices, pipes.
 *
 * INVARIANT: every step is one name in a folder that is open already, through its descriptor, and
 * no link is ever followed: so no name of the guest's leads anywhere but down the mount.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  unlinkSync,
} from 'node:fs';
import { DiskError, errnoName } from '../common/errors.js';

const { O_RDONLY, O_RDWR, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;

export type EntryKind = 'file' | 'folder' | 'link' | 'other' | 'absent';

export class GuestFolder {
  readonly #fd: number;
  /** From the mount's root, for messages; empty for the root. */
  readonly path: string;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.path = path;
  }

  /** @param mountpoint the host's own folder, which may be trusted. */
  static openRoot(mountpoint: string): GuestFolder {
    return new GuestFolder(openSync(mountpoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), '');
  }

  close(): void {
    closeSync(this.#fd);
  }

  kindOf(name: string): EntryKind {
    const state = this.#work(name, 'looked up', () =>
      lstatSync(this.#place(name), { throwIfNoEntry: false }),
    );
    if (state === undefined) return 'absent';
    if (state.isSymbolicLink()) return 'link';
    if (state.isDirectory()) return 'folder';
    return state.isFile() ? 'file' : 'other';
  }

  /** A folder in it, to be closed by the caller. */
  open(name: string): GuestFolder {
    const flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK;
    const fd = this.#work(name, 'opened', () => openSync(this.#place(name), flags));
    return new GuestFolder(fd, this.#name(name));
  }

  names(): string[] {
    return this.#work('', 'listed', () => readdirSync(`/proc/self/fd/${this.#fd}`)).sort();
  }

  remove(name: string): void {
    this.#work(name, 'removed', () => unlinkSync(this.#place(name)));
  }

  /** Makes a regular file empty. @returns whether it was not yet. */
  empty(name: string): boolean {
    return this.#work(name, 'emptied', () => {
      const flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
      const fd = openSync(this.#place(name), flags);
      try {
        if (fstatSync(fd).size === 0) return false;
        ftruncateSync(fd, 0);
        fsyncSync(fd);
        return true;
      } finally {
        closeSync(fd);
      }
    });
  }

  #name(name: string): string {
    return `${this.path}/${name}`;
  }

  /** One name only, in this very folder. */
  #place(name: string): string {
    if (name === '' || name === '.' || name === '..' || name.includes('/')) {
      throw new Error(`${JSON.stringify(name)} is not the name of an entry`);
    }
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  #work<T>(name: string, verb: string, task: () => T): T {
    try {
      return task();
    } catch (error) {
      const errno = errnoName(error);
      if (errno === undefined) throw error;
      const path = this.#name(name);
      throw new DiskError('failed', `${path} in the guest cannot be ${verb} (${errno})`, { errno });
    }
  }
}
