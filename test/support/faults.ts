/** Failure that is addressable: every fallible call names its step; a test makes exactly one of them fail. */
import { DiskError } from '../../src/common/errors.js';
import { type DurableFiles, hostFiles } from '../../src/storage/atomic-write.js';

export class Faults {
  /** Steps in the order they were reached since the last `arm` or `record`. */
  readonly steps: string[] = [];
  #failing: number | undefined;

  /** Lets everything pass and writes down the steps. */
  record(): void {
    this.#failing = undefined;
    this.steps.length = 0;
  }

  /** Fails the step with this position, counted from 0. */
  arm(position: number): void {
    this.record();
    this.#failing = position;
  }

  /** @throws DiskError when this is the step that is to fail. */
  reach(step: string): void {
    this.steps.push(step);
    if (this.steps.length - 1 !== this.#failing) return;
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
