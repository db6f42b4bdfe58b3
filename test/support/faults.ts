/**
 * Failure that is addressable: every fallible call names its step; a test makes exactly one of them
 * fail.
 */
import { DiskError } from '../../src/common/errors.js';
import { type DurableFiles, hostFiles } from '../../src/storage/atomic-write.js';

export class Faults {
  /** Steps in the order they were reached since the last `arm` or `record`. */
  readonly steps: string[] = [];
  #failing: number | undefined;
  #onwards = false;

  /** Lets everything pass and writes down the steps. */
  record(): void {
    this.#failing = undefined;
    this.steps.length = 0;
  }

  /**
   * Fails the step with this position, counted from 0; `onwards`: and all after it, as a crash
   * would.
   */
  arm(position: number, onwards = false): void {
    this.record();
    this.#failing = position;
    this.#onwards = onwards;
  }

  /** @throws DiskError when this is the step that is to fail. */
  reach(step: string): void {
    this.steps.push(step);
    const position = this.steps.length - 1;
    const failing = this.#failing ?? Number.POSITIVE_INFINITY;
    if (position < failing || (position > failing && !this.#onwards)) return;
    throw new DiskError('failed', `injected at ${step}`, { errno: 'EIO' });
  }
}

/** The host's files with faults: a step fails before it has any effect. */
export function faultyFiles(faults: Faults): DurableFiles {
  return {
    async writeNew(path, content, step) {
      faults.reach(step);
      await hostFiles.writeNew(path, content, step);
    },
    rename(from, to, step) {
      faults.reach(step);
      hostFiles.rename(from, to, step);
    },
    async syncFolder(path, step) {
      faults.reach(step);
      await hostFiles.syncFolder(path, step);
    },
    async remove(path, step) {
      faults.reach(step);
      await hostFiles.remove(path, step);
    },
  };
}
