/** The methods of the control protocol that are about guests: `run` and `stop`. */
import { DiskError } from '../../common/errors.js';
import type { Handlers, RunPlan, SavedMemoryView } from '../../control/protocol.js';
import type { LocalEngine } from '../../engine/local-engine.js';
import { QEMU } from '../../guest/command-line.js';
import { stopGuest } from '../../guest/guest-control.js';
import { identify, type ProcessIdentity } from '../../guest/processes.js';
import { type RunFolder, readRunning, runFiles } from '../../guest/run-folder.js';
import type { UsableMemory } from '../../vm/resume.js';
import type { Guests } from '../guests.js';
import type { DiskUsers } from './disk-users.js';
import { findProcesses } from './processes.js';
import { type ViewSources, viewVm } from './vm-views.js';

export interface GuestHandlerSources extends ViewSources {
  readonly guests: Guests;
  readonly users: DiskUsers;
  readonly storeId: string;
  readonly engine: Pick<LocalEngine, 'tryOpen'>;
}

const STOP_SECONDS = 60;
/** Of a process's name, the kernel keeps so much. */
const MOST_OF_A_NAME = 15;

export function guestHandlers(
  sources: GuestHandlerSources,
): Pick<Handlers, 'run' | 'run.resumed' | 'stop'> {
  const { service, guests } = sources;
  return {
    async run({ vm, discardMemory = false, start = false }) {
      const plan = await service.exclusively(vm, () => planRun(sources, vm, discardMemory));
      if (discardMemory) await service.discardMemory(vm);
      if (start && plan.memory === undefined) await service.resetImmutable(vm);
      return plan;
    },
    async 'run.resumed'({ vm }) {
      await service.useMemory(vm);
      return {};
    },
    async stop({ vm, force = false, timeoutSeconds = STOP_SECONDS }, { signal }) {
      const { number } = service.read(vm);
      const state = guests.state(number);
      if (state === undefined) {
        throw new DiskError('not-found', `VM "${vm}" does not run`, {
          hint: `start it: layerdisk run ${vm}`,
        });
      }
      const folder = guests.folderOf(number);
      const guest = state === 'in-between' ? abandonedGuest(folder, vm, force) : state;
      const timeoutMs = timeoutSeconds * 1000;
      await stopGuest(folder, guest, { vm, force, timeoutMs, signal });
      return {};
    },
  };
}

/**
 * A QEMU that nobody has but itself, with no note of it: whoever started it was killed before the
 * guest ran, and it stands still for ever.
 * @param force whether it is to be ended, which is all that can be done with it.
 * @throws DiskError `busy`.
 */
function abandonedGuest(folder: RunFolder, vm: string, force: boolean): ProcessIdentity {
  const holders = findProcesses(runFiles(folder).lock);
  const isQemu = holders.every(({ name }) => name === QEMU.slice(0, MOST_OF_A_NAME));
  const guest = isQemu && holders[0] !== undefined ? identify(holders[0].pid) : undefined;
  // Who started it may have noted it and let go since the look that brought us here.
  const running = readRunning(folder);
  if (running !== undefined) return running;
  if (guest === undefined) {
    throw new DiskError('busy', `VM "${vm}" is just being started or ended`, {
      errno: 'EBUSY',
      hint: 'try again in a moment',
    });
  }
  if (force) return guest;
  const what = `VM "${vm}" was being started by a command that is gone: QEMU (pid ${guest.pid})`;
  throw new DiskError('busy', `${what} stands still`, {
    errno: 'EBUSY',
    hint: `end it: layerdisk stop ${vm} --force`,
  });
}

/** Runs while nothing changes the VM; what would, sees the caller's lock afterwards. */
async function planRun(
  sources: GuestHandlerSources,
  vm: string,
  discardMemory: boolean,
): Promise<RunPlan> {
  const { service, guests, storeId, engine } = sources;
  const { number, disks } = service.read(vm);
  await refuseWhileUsed(sources, vm, `run "${vm}"`);
  // QEMU would hear EIO, and what looks for file systems would take the disks for empty ones.
  for (const { head } of disks) await engine.tryOpen(head, { writable: true });
  const memory = discardMemory ? undefined : await service.usableMemory(vm);
  return {
    vm: viewVm(sources, vm),
    folder: await guests.makeFolder(number),
    storeId,
    ...(memory === undefined ? {} : { memory: viewMemory(vm, memory) }),
  };
}

function viewMemory(vm: string, { path, snapshot, state }: UsableMemory): SavedMemoryView {
  const { size, checksum, setup } = state;
  return { from: `${vm}@${snapshot}`, path, size, checksum, setup };
}

/**
 * Refuses to hand the disks to a hypervisor beside somebody else: a disk that two write to, of whom
 * neither knows of the other, does not stay whole. For who keeps changes off.
 * @throws DiskError `busy` naming who uses them.
 */
export async function refuseWhileUsed(
  { service, guests, users }: Pick<GuestHandlerSources, 'service' | 'guests' | 'users'>,
  vm: string,
  what: string,
): Promise<void> {
  const running = guests.state(service.read(vm).number);
  if (running !== undefined && running !== 'in-between') {
    throw new DiskError('busy', `VM "${vm}" already runs (pid ${running.pid})`, {
      errno: 'EBUSY',
      hint: `end it first: layerdisk stop ${vm}`,
    });
  }
  const [holder] = await users.holders({ vm, part: 'heads' });
  if (holder !== undefined) {
    throw new DiskError('busy', `cannot ${what}: ${holder.what}`, {
      errno: 'EBUSY',
      hint: holder.remedy ?? 'close it there first',
    });
  }
  await service.refuseUnnamedUsers(vm, what);
}
