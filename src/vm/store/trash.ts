/**
 * The store's trash folder: what was removed goes here by a rename, and is deleted some time later.
 */
import { randomBytes } from 'node:crypto';
import { basename, join } from 'node:path';
import type { DurableFiles } from '../../storage/atomic-write.js';
import { hostError } from '../../storage/exact-io.js';
import { describeFile, listFolder, removeTree } from '../../storage/small-files.js';

/** A network file system's clock may be so far ahead of ours. */
const CLOCK_SLACK_MS = 3_600_000;

export interface TrashedFile {
  readonly name: string;
  readonly bytes: number;
  /** When it came here, milliseconds since the epoch. */
  readonly since: number;
}

export class Trash {
  readonly folder: string;
  readonly #files: DurableFiles;

  constructor(folder: string, files: DurableFiles) {
    this.folder = folder;
    this.#files = files;
  }

  /**
   * Moves a file here, at one instant, under a name that is new and ends in its own.
   * @throws DiskError with the host's errno.
   */
  put(path: string, step: string): void {
    const name = `${Date.now()}-${randomBytes(4).toString('hex')}-${basename(path)}`;
    try {
      this.#files.rename(path, join(this.folder, name), step);
    } catch (error) {
      throw hostError(`cannot move ${path} to the trash`, error);
    }
  }

  async list(): Promise<TrashedFile[]> {
    const found: TrashedFile[] = [];
    for (const name of listFolder(this.folder) ?? []) {
      const facts = await describeFile(join(this.folder, name));
      // Undefined: somebody emptied the trash at the same time.
      if (facts !== undefined) found.push({ name, bytes: facts.storedSize, since: facts.changed });
    }
    return found;
  }

  /**
   * Deletes for good what came here before `before` (milliseconds since the epoch), or in the
   * future: then the clock was set back, and nobody knows when. Answers what went.
   */
  async empty(before: number): Promise<TrashedFile[]> {
    const now = Date.now() + CLOCK_SLACK_MS;
    const old = (await this.list()).filter(({ since }) => since < before || since > now);
    try {
      for (const each of old) await removeTree(join(this.folder, each.name), 'trash.empty');
    } catch (error) {
      throw hostError(`cannot empty ${this.folder}`, error);
    }
    return old;
  }
}
