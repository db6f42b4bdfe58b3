/**
 * Files that hold the memory of guests: `memory/ID.state`, written by QEMU. Only a manifest makes
 * one stay.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { DiskError, errnoName } from '../../common/errors.js';
import { temporaryPath } from '../../storage/atomic-write.js';
import { type SummedFile, sumFile, syncFile } from '../../storage/file-checksum.js';
import { describeFile, fileSize, listFolder } from '../../storage/small-files.js';
import type { MemoryState } from './manifest.js';
import type { VmStore } from './vm-store.js';

const NAME = /^([0-9a-f]{32})\.state$/;

/** A file in the making: `part` is renamed to `path` by whoever has written all of it. */
export interface NewMemoryFile {
  readonly id: string;
  readonly part: string;
  readonly path: string;
}

export class MemoryFiles {
  readonly #store: VmStore;

  constructor(store: VmStore) {
    this.#store = store;
  }

  /** Names for a new file; nothing is made yet. */
  name(): NewMemoryFile {
    const id = randomBytes(16).toString('hex');
    const path = this.path(id);
    return { id, path, part: temporaryPath(path) };
  }

  path(id: string): string {
    return join(this.#store.layout.memory, `${id}.state`);
  }

  /** The name in the store, for people. */
  nameOf(id: string): string {
    return `memory/${id}.state`;
  }

  /** Makes a whole file durable. @throws DiskError `failed`. */
  async seal({ path }: NewMemoryFile): Promise<SummedFile> {
    const { files, layout } = this.#store;
    await syncFile(path);
    const summed = await sumFile(path);
    await files.syncFolder(layout.memory, 'memory.sync-folder');
    return summed;
  }

  /** Removes what became of a new file; one that is not there is no error. */
  async discard({ part, path }: NewMemoryFile): Promise<void> {
    for (const each of [part, path]) await this.#store.files.remove(each, 'memory.discard');
  }

  list(): string[] {
    return (listFolder(this.#store.layout.memory) ?? []).flatMap((name) => {
      const id = NAME.exec(name)?.[1];
      return id === undefined ? [] : [id];
    });
  }

  /** Moves a file that nothing refers to into the trash. */
  remove(id: string): void {
    try {
      this.#store.trash.put(this.path(id), 'memory.trash');
    } catch (error) {
      if (errnoName(error) !== 'ENOENT') throw error;
    }
  }

  /** Bytes that it takes on the host; 0 when it is gone. */
  async storedSize(id: string): Promise<number> {
    return (await describeFile(this.path(id)))?.storedSize ?? 0;
  }

  /**
   * Looks whether a file is what it was; `deep`: reads all of it.
   * @throws DiskError `damaged`, naming it.
   */
  async examine({ id, size, checksum }: MemoryState, deep: boolean): Promise<void> {
    const found = fileSize(this.path(id));
    if (found === undefined) throw damaged(id, 'is missing');
    if (found !== size) throw damaged(id, `has ${found} bytes, not ${size}`);
    if (!deep) return;
    const summed = await sumFile(this.path(id));
    if (summed.checksum !== checksum) throw damaged(id, 'does not match its checksum');
  }
}

function damaged(id: string, what: string): DiskError {
  return new DiskError('damaged', `the saved memory memory/${id}.state ${what}`, {
    hint: 'the disks are not concerned: start the VM without it: layerdisk run --discard-memory',
    errno: 'EIO',
  });
}
