/** Events that users should act on, which no command of theirs brought about. */
import { DiskError } from '../common/errors.js';
import { formatSize } from '../common/units.js';
import type { NewEvent, SpaceState } from '../control/protocol.js';
import type { DamagedVm } from '../vm/store/vm-catalog.js';

export interface SpaceFacts {
  readonly free: number;
  readonly total: number;
}

export function spaceEvent(state: SpaceState, { free, total }: SpaceFacts): NewEvent {
  const how = { low: 'runs full', full: 'is full', plenty: 'has room again' }[state];
  const left = `${formatSize(free)} of ${formatSize(total)} free`;
  return {
    event: `space.${state}`,
    text: `the store's file system ${how}: ${left}`,
    ...{ state, freeBytes: free, totalBytes: total },
  };
}

/** What work in the background, or a read, found; undefined for any other error. */
export function damageEvent(error: unknown): NewEvent | undefined {
  if (!(error instanceof DiskError) || error.code !== 'damaged') return undefined;
  const { message: problem } = error;
  return { event: 'damage.found', text: `damage: ${problem}`, problem };
}

export function damagedVmEvent({ name, problem: { message } }: DamagedVm): NewEvent {
  return {
    event: 'vm.damaged',
    text: `${name} cannot be used: ${message}`,
    vm: name,
    problem: message,
  };
}
