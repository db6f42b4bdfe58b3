/**
 * Stands between the program and the host: every call of `storage/host-calls.ts` can be seen, and
 * made to fail by its number or its label, once or from then on.
 */
import { type HostCalls, hostCalls } from '../../src/storage/host-calls.js';

export type HostCallName = keyof HostCalls;

export interface HostCall {
  readonly name: HostCallName;
  readonly label: string;
  /** As the program gave them, the label last. */
  readonly args: readonly unknown[];
}

type Run = (...args: unknown[]) => unknown;

/**
 * Runs `around` in the place of every call; `run` does what was asked for, or, with arguments,
 * something else.
 * @returns what puts the host's own calls back.
 */
export function aroundHostCalls(around: (call: HostCall, run: Run) => unknown): () => void {
  const original = { ...hostCalls };
  for (const name of Object.keys(original) as HostCallName[]) {
    const call = original[name] as Run;
    const replaced = (...args: unknown[]) => {
      const label = String(args.at(-1));
      return around({ name, label, args }, (...others) => call(...(others.length ? others : args)));
    };
    Object.assign(hostCalls, { [name]: replaced });
  }
  return () => void Object.assign(hostCalls, original);
}

/**
 * What goes wrong. `short`: a write moves half of what it was given. `full`: the file system is
 * full: a write moves half, what needs space afterwards fails with ENOSPC, all else goes on.
 */
export type FaultKind = 'EIO' | 'ENOSPC' | 'EDQUOT' | 'short' | 'full';

export interface Fault {
  readonly kind: FaultKind;
  /** The call that fails, counted from 0, of those that `isCounted`. */
  readonly at: number;
  /** All calls after it fail, too. */
  readonly onwards: boolean;
}

const TAKES_SPACE: ReadonlySet<HostCallName> = new Set([
  'create',
  'createNameless',
  'write',
  'allocate',
  'link',
  'nameOpen',
]);
const LATER: ReadonlySet<HostCallName> = new Set([
  'syncLater',
  'syncDataLater',
  'removeTree',
  'makeFolders',
]);

/** Of a disk's bytes whole sectors: a host does not tear those while it runs. */
function halfOf(length: number): number {
  const unit = length >= 1024 ? 512 : 1;
  return Math.floor(length / 2 / unit) * unit;
}

/** Counts the calls that change something, and fails the one it is told to. */
export class HostFaults {
  /** Labels of the calls since `record` or `arm`, in their order. */
  readonly labels: string[] = [];
  /** Labels of those that were made to fail. */
  readonly failed: string[] = [];
  #fault: Fault | undefined;
  readonly #restore: () => void;
  readonly #isCounted: (call: HostCall) => boolean;

  constructor(isCounted: (call: HostCall) => boolean = ({ name }) => name !== 'read') {
    this.#isCounted = isCounted;
    this.#restore = aroundHostCalls((call, run) => this.#meet(call, run));
  }

  /** Lets everything pass and counts from 0 again. */
  record(): void {
    this.#fault = undefined;
    this.labels.length = 0;
    this.failed.length = 0;
  }

  arm(fault: Fault): void {
    this.record();
    this.#fault = fault;
  }

  /** The host's own calls again. */
  remove(): void {
    this.#restore();
  }

  #meet(call: HostCall, run: Run): unknown {
    if (!this.#isCounted(call)) return run();
    const position = this.labels.push(call.label) - 1;
    const fault = this.#fault;
    if (fault === undefined || position < fault.at) return run();
    if (position > fault.at && !fault.onwards) return run();
    return this.#fail(call, run, fault, position === fault.at);
  }

  #fail(call: HostCall, run: Run, fault: Fault, first: boolean): unknown {
    const { kind } = fault;
    const isWrite = call.name === 'write' && Number(call.args[3]) > 1;
    if (kind === 'short' || (kind === 'full' && first)) {
      if (!isWrite) {
        if (kind === 'short' || !TAKES_SPACE.has(call.name)) return run();
      } else {
        const [fd, source, at, length, offset, label] = call.args;
        this.failed.push(call.label);
        return run(fd, source, at, halfOf(Number(length)), offset, label);
      }
    }
    if (kind === 'full' && !TAKES_SPACE.has(call.name)) return run();
    this.failed.push(call.label);
    const code = kind === 'full' ? 'ENOSPC' : kind;
    const error = Object.assign(new Error(`${code}: injected at ${call.label}`), { code });
    if (LATER.has(call.name)) return Promise.reject(error);
    throw error;
  }
}
