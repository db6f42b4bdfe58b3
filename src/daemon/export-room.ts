/**
 * The room that an export takes: refused at once when it is known to be too little, and broken off
 * when it would take the store's reserve.
 */
import { dirname } from 'node:path';
import { DiskError } from '../common/errors.js';
import { BLOCK_SIZE, divCeil, formatSize } from '../common/units.js';
import type { Allowance } from '../engine/shared/allowance.js';
import { takesAllSpace } from '../formats/choose-writing.js';
import type { WriteHooks } from '../formats/write-image.js';
import { freeSpace } from '../storage/free-space.js';
import type { ExportJob } from '../vm/exchange/exports.js';

export class ExportRoom {
  readonly #allowance: Allowance;
  readonly #job: ExportJob;

  constructor(allowance: Allowance, job: ExportJob) {
    this.#allowance = allowance;
    this.#job = job;
  }

  /**
   * What is left out or packed is known only at the end: asks for images that take all their space.
   * @throws DiskError ENOSPC.
   */
  require(virtualSize: number): void {
    const { path, format, subformat, inStoreSpace } = this.#job;
    if (!takesAllSpace(format, subformat)) return;
    const { free } = freeSpace(dirname(path));
    const left = inStoreSpace ? Math.min(free, this.#allowance.left) : free;
    if (virtualSize <= left) return;
    const text = `${path} needs ${formatSize(virtualSize)}; ${formatSize(left)} may be taken there`;
    throw new DiskError('failed', text, {
      errno: 'ENOSPC',
      hint: 'export to another file system, or to a format that leaves out what is empty',
    });
  }

  /** Counts what is written as the blocks of guests are. */
  watch(hooks: WriteHooks): WriteHooks {
    if (!this.#job.inStoreSpace) return hooks;
    const allowance = this.#allowance;
    let counted = 0;
    return {
      ...hooks,
      onProgress: (doneBytes) => {
        const blocks = divCeil(doneBytes - counted, BLOCK_SIZE);
        counted = doneBytes;
        this.#take(blocks);
        allowance.settle(blocks);
        hooks.onProgress?.(doneBytes);
      },
    };
  }

  /** @throws DiskError ENOSPC that names the file. */
  #take(blocks: number): void {
    try {
      this.#allowance.take(blocks);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      const { message, errno } = error;
      throw new DiskError('failed', `${this.#job.path}: not written further, because ${message}`, {
        ...(errno === undefined ? {} : { errno }),
        hint: 'export to another file system, or free space there: layerdisk gc',
        cause: error,
      });
    }
  }
}
