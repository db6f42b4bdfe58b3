/** New VMs with empty disks. */
import { DiskError } from '../common/errors.js';
import { checkDiskSize } from '../common/units.js';
import type { Allocation } from '../engine/engine.js';
import { newManifest } from './clones.js';
import { type VmContext, withNewName } from './context.js';
import { type DiskKind, withKind } from './disk-kinds.js';
import { changeHardware, type HardwareRequest } from './hardware.js';
import { Preparation } from './preparation.js';
import { requireRoom } from './room.js';
import { type DiskRecord, NODE } from './store/manifest.js';
import { checkName } from './store/names.js';

export const MAX_DISKS = 64;

export interface DiskRequest {
  /** Default `disk0`, `disk1`, ... */
  readonly name?: string;
  /** Bytes. */
  readonly size: number;
  readonly allocation?: Allocation;
  readonly kind?: DiskKind;
}

/**
 * @throws DiskError `usage`, `exists`; `failed` with ENOSPC when a static disk does not fit.
 */
export async function createVm(
  context: VmContext,
  name: string,
  requests: readonly DiskRequest[],
  hardware: HardwareRequest,
): Promise<void> {
  checkName('VM', name);
  const names = nameDisks(requests.map((each) => each.name));
  requests.forEach((each, index) => {
    checkDiskSize(each.size, `disk "${names[index]}"`);
  });
  await withNewName(context, name, () =>
    Preparation.run(context, async (preparation) => {
      const fixed = requests.filter(({ allocation }) => allocation === 'static');
      const data = fixed.reduce((sum, { size }) => sum + size, 0);
      requireRoom(context.room, { what: `create "${name}"`, deltas: requests.length, data });
      const settings = changeHardware(hardware, preparation.macs);
      const disks: DiskRecord[] = [];
      for (const [index, request] of requests.entries()) {
        const { size, allocation = 'dynamic', kind = 'normal' } = request;
        const head = await preparation.createDelta({
          below: { kind: 'none' },
          virtualSize: size,
          allocation,
        });
        const disk = names[index] ?? '';
        const record = { name: disk, node: NODE.first + index, size, allocation, head };
        disks.push(await withKind(preparation, record, kind));
      }
      const manifest = await newManifest(context, settings, disks, undefined);
      await preparation.commit(await context.store.prepareNew(name, manifest));
    }),
  );
  context.hooks.namesChanged(name);
}

/**
 * Checks the names of a new VM's disks and fills in those not given, as `disk<position>`.
 * @throws DiskError `usage`.
 */
export function nameDisks(names: readonly (string | undefined)[]): string[] {
  if (names.length === 0 || names.length > MAX_DISKS) {
    throw new DiskError('usage', `${names.length} disks are not possible`, {
      hint: `give 1 to ${MAX_DISKS}, for example --disk 10G`,
    });
  }
  const given = new Set<string>();
  for (const name of names) {
    if (name === undefined) continue;
    checkName('disk', name);
    if (given.has(name)) throw new DiskError('usage', `two disks are named "${name}"`);
    given.add(name);
  }
  return names.map((name, index) => {
    if (name !== undefined) return name;
    if (!given.has(`disk${index}`)) return `disk${index}`;
    throw new DiskError('usage', `two disks are named "disk${index}"`, {
      hint: 'give every disk a name: --disk NAME=SIZE',
    });
  });
}
