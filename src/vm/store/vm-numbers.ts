/**
 * Numbers of VMs: the upper half of inode numbers, which the kernel may remember longer than the
 * daemon lives.
 */
import * as z from 'zod';
import { DiskError } from '../../common/errors.js';
import { Mutex } from '../../common/mutex.js';
import { formatSealed, parseSealed } from '../../common/sealed-json.js';
import { type DurableFiles, replaceFile } from '../../storage/atomic-write.js';
import { readText } from '../../storage/small-files.js';
import { goneError } from './store-layout.js';

/** Numbers that are set aside at once, so that not every new VM costs a write. */
const RESERVE = 1024;
const MAX_NUMBER = 0xffff_ffff;

const schema = z.strictObject({
  version: z.literal(1),
  /** All below it may have been given out. */
  next: z.int().min(1),
});

/**
 * INVARIANT: no number is given out twice in the life of a store, not even that of a deleted VM:
 * the kernel may still hold pages of its files.
 */
export class VmNumbers {
  readonly #path: string;
  readonly #files: DurableFiles;
  readonly #mutex = new Mutex();
  #next: number;
  /** Numbers below it are set aside in the file. */
  #reserved: number;

  private constructor(path: string, files: DurableFiles, next: number) {
    this.#path = path;
    this.#files = files;
    this.#next = next;
    this.#reserved = next;
  }

  /**
   * @param highest the highest number in use: for a store whose file was lost.
   * @throws DiskError `damaged`, `failed`.
   */
  static load(path: string, files: DurableFiles, highest: number): VmNumbers {
    return new VmNumbers(path, files, Math.max(VmNumbers.read(path) ?? 1, highest + 1));
  }

  /**
   * What the file says.
   * @returns undefined when there is none.
   * @throws DiskError `damaged`.
   */
  static read(path: string): number | undefined {
    try {
      const text = readText(path);
      if (text === undefined) return undefined;
      const { json, intact } = parseSealed(text);
      if (!intact) throw new Error('it does not match its checksum');
      return schema.parse(json).next;
    } catch (error) {
      throw new DiskError('damaged', `cannot use ${path}`, {
        hint: 'restore that file from a backup, or remove it after a restart of the host',
        cause: error,
      });
    }
  }

  /**
   * @param isKnown whether there was one: a store has none before its first VM.
   * @throws DiskError `damaged`.
   */
  static check(path: string, isKnown: boolean): void {
    if (VmNumbers.read(path) !== undefined || !isKnown) return;
    throw goneError(path);
  }

  /** Writes the file anew, with what is known since it was read whole. */
  async rewrite(): Promise<void> {
    await this.#mutex.run(() => this.#write(this.#reserved));
  }

  #write(next: number): Promise<void> {
    return replaceFile(this.#files, this.#path, formatSealed({ version: 1, next }), 'numbers');
  }

  async take(): Promise<number> {
    return this.#mutex.run(async () => {
      if (this.#next >= this.#reserved) {
        const next = this.#next + RESERVE;
        await this.#write(next);
        this.#reserved = next;
      }
      if (this.#next > MAX_NUMBER) {
        throw new DiskError('not-supported', 'this store has used up its VM numbers', {
          hint: 'export the VMs into a new store',
        });
      }
      return this.#next++;
    });
  }
}
