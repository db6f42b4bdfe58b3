/** VMs from whole machines: their hardware, and their snapshots as our tree, in one commit. */
import { randomUUID } from 'node:crypto';
import { DiskError } from '../../common/errors.js';
import { checkDiskSize } from '../../common/units.js';
import type { MachineDescription, MachineDisk, MachineHardware } from '../../machines/machine.js';
import { checkNotCancelled, newManifest } from '../clones.js';
import { type VmContext, type Work, withNewName } from '../context.js';
import { nameDisks } from '../create.js';
import { isInSnapshots, kindOf, kindPart, withKind } from '../disk-kinds.js';
import {
  changeHardware,
  DEFAULT_HARDWARE,
  type HardwareRequest,
  MAX_NICS,
  type MacClaims,
} from '../hardware.js';
import { Preparation } from '../preparation.js';
import { requireRoom } from '../room.js';
import type { BaseRequest, DescribedBase } from '../store/base-records.js';
import {
  type DiskRecord,
  type Hardware,
  type Manifest,
  type NicRecord,
  NODE,
  type SnapshotRecord,
} from '../store/manifest.js';
import { checkName } from '../store/names.js';
import { refuseOwnFile } from './import.js';
import { CopiedImages, type DescribedImage, ReferencedImages } from './machine-images.js';
import {
  allDisks,
  DiskNames,
  imageKey,
  type NamedSnapshot,
  nameSnapshots,
  nicOf,
  topKey,
  vmNameOf,
} from './machine-plan.js';

export interface MachineImport {
  readonly machine: MachineDescription;
  /** Default: the machine's own name, as far as our rules allow. */
  readonly vm?: string;
  readonly copy: boolean;
  /** What it says stands in for what the machine has now; snapshots keep theirs. */
  readonly hardware: HardwareRequest;
  /** Besides the folder of the machine file. */
  readonly allowFolders: readonly string[];
  readonly ownFolders: readonly string[];
}

export interface ImportedMachine {
  readonly vm: string;
  /** What was not taken over as it was, one line each. */
  readonly warnings: readonly string[];
}

/** One disk of a state as it is about to be made. */
interface PlannedDisk extends Pick<DiskRecord, 'kind'> {
  readonly name: string;
  readonly size: number;
  /** Undefined: empty. */
  readonly image: string | undefined;
}

type Images = ReadonlyMap<string, DescribedImage>;

/**
 * @throws DiskError `exists`, `usage` for hardware that is not possible, and whatever is wrong with
 * an image, by name.
 */
export async function importMachine(
  context: VmContext,
  request: MachineImport,
  work: Work,
): Promise<ImportedMachine> {
  const { machine } = request;
  const vm = request.vm ?? vmNameOf(machine);
  checkName('VM', vm);
  if (machine.disks.length === 0) {
    throw new DiskError('not-supported', `${machine.path}: the machine has no disk`, {
      hint: `make one with an empty disk: layerdisk create ${vm} --disk 20G`,
    });
  }
  const warnings = [...machine.warnings, ...omittedNics(machine)];
  await withNewName(context, vm, () =>
    Preparation.run(context, async (preparation) => {
      const images = await describeImages(context, request);
      checkNotCancelled(work);
      warnings.push(...[...images.values()].flatMap(({ described }) => described.warnings ?? []));
      requireRoom(context.room, { what: `import "${vm}"`, deltas: 2 * images.size });
      const manifest = await buildManifest(context, preparation, {
        request,
        images,
        warnings,
        work,
      });
      await preparation.commit(await context.store.prepareNew(vm, manifest));
    }),
  );
  context.hooks.namesChanged(vm);
  return { vm, warnings };
}

function omittedNics({ hardware, snapshots }: MachineDescription): string[] {
  const all = [hardware, ...snapshots.map((snapshot) => snapshot.hardware)];
  const most = Math.max(...all.map(({ nics }) => nics.length));
  if (most <= MAX_NICS) return [];
  return [`only the first ${MAX_NICS} of ${most} network adapters are taken over`];
}

/** Opens every image once, with all that it stands on. */
async function describeImages(
  context: VmContext,
  { machine, allowFolders, ownFolders, copy }: MachineImport,
): Promise<Images> {
  const images = new Map<string, DescribedImage>();
  for (const { image } of allDisks(machine)) {
    if (image === undefined) continue;
    const { path, format, parents, parentFormats, window } = image;
    const key = imageKey(path, window);
    if (images.has(key)) continue;
    await refuseOwnFile(path, ownFolders);
    // Opening a long chain takes a while, and others use this thread, too.
    await new Promise((resolve) => setImmediate(resolve));
    const request = {
      path,
      options: {
        format,
        allowFolders: [machine.folder, ...allowFolders],
        ...(parents.length === 0 ? {} : { parents }),
        ...(parentFormats === undefined ? {} : { parentFormats }),
        ...(window === undefined ? {} : { window }),
      },
    };
    const described = await describeStated(context, machine, request, !copy);
    checkDiskSize(described.spec.virtualSize, path);
    images.set(key, { key, request, described });
  }
  return images;
}

/** The format is what the machine file states: where it is another one, that file is wrong. */
async function describeStated(
  { bases }: VmContext,
  { path }: MachineDescription,
  request: BaseRequest,
  stays: boolean,
): Promise<DescribedBase> {
  try {
    return await bases.describe(request, stays);
  } catch (error) {
    if (!(error instanceof DiskError) || error.code !== 'usage') throw error;
    throw new DiskError('damaged', `${path} states another format: ${error.message}`, {
      hint: 'correct the format in this file, or import the disks one by one',
      cause: error,
    });
  }
}

interface Plan {
  readonly request: MachineImport;
  readonly images: Images;
  /** Grows. */
  readonly warnings: string[];
  readonly work: Work;
}

async function buildManifest(
  context: VmContext,
  preparation: Preparation,
  { request, images, warnings, work }: Plan,
): Promise<Manifest> {
  const { machine } = request;
  const vmId = randomUUID();
  const names = new DiskNames();
  const present = planDisks(machine.disks, images, names);
  nameDisks(present.map(({ name }) => name));
  const planned = nameSnapshots(machine.snapshots).map((named) => ({
    named,
    disks: planDisks(named.snapshot.disks, images, names).filter(isInSnapshots),
  }));
  const macs = new MachineMacs(preparation.macs, warnings);
  const hardware = presentHardware(request, preparation.macs, macs);
  const sealed = new Set(planned.flatMap(({ disks }) => disks.map(({ image }) => image)));
  const Images = request.copy ? CopiedImages : ReferencedImages;
  const deltas = await Images.make(context, preparation, { vmId, images, sealed, work });
  const disks = await makeHeads(preparation, deltas, present);
  let nextNode = NODE.first + disks.length;
  const snapshots: SnapshotRecord[] = [];
  const ids = new Map(planned.map(({ named }) => [named.snapshot.id, randomUUID()]));
  for (const { named, disks: labelled } of planned) {
    const record = snapshotRecord(named, ids, nextNode, {
      ...changeHardware({}, preparation.macs, hardwareFrom(named.snapshot.hardware, macs)),
      disks: labelled.map(({ name, size, image }, index) => ({
        name,
        node: nextNode + 1 + index,
        size,
        allocation: 'dynamic',
        delta: deltas.sealed(image ?? ''),
      })),
    });
    snapshots.push(record);
    nextNode += 1 + labelled.length;
  }
  const fresh = await newManifest(context, hardware, disks, undefined);
  const current = machine.current === null ? null : (ids.get(machine.current) ?? null);
  return { ...fresh, id: vmId, snapshots, current, nextNode };
}

/** What the disks of a state are called, from what is at the bottom of each. */
function planDisks(disks: readonly MachineDisk[], images: Images, names: DiskNames): PlannedDisk[] {
  const found = disks.map((disk) => ({ disk, image: images.get(topKey(disk) ?? '') }));
  const roots = found.map(({ disk, image }) => image?.described.spec.images.at(-1) ?? disk.slot);
  const named = names.of(
    roots.map((root) => (typeof root === 'string' ? root : imageKey(root.path, root.window))),
  );
  return found.map(({ disk, image }, index) => {
    const name = named[index] ?? '';
    if (image === undefined) checkDiskSize(disk.size ?? 0, `disk ${disk.slot}`);
    const size = image?.described.spec.virtualSize ?? disk.size ?? 0;
    return { name, size, image: image?.key, ...kindPart(disk) };
  });
}

async function makeHeads(
  preparation: Preparation,
  deltas: ReferencedImages | CopiedImages,
  disks: readonly PlannedDisk[],
): Promise<DiskRecord[]> {
  const records: DiskRecord[] = [];
  for (const [index, disk] of disks.entries()) {
    const { name, size, image } = disk;
    const head =
      image === undefined
        ? await preparation.createDelta({
            below: { kind: 'none' },
            virtualSize: size,
            allocation: 'dynamic',
          })
        : await deltas.head(image);
    const record = { name, node: NODE.first + index, size, allocation: 'dynamic', head } as const;
    records.push(await withKind(preparation, record, kindOf(disk)));
  }
  return records;
}

function snapshotRecord(
  { snapshot, name, message }: NamedSnapshot,
  ids: ReadonlyMap<string, string>,
  node: number,
  content: Hardware & Pick<SnapshotRecord, 'disks'>,
): SnapshotRecord {
  const { id, created = new Date(), parent } = snapshot;
  return {
    id: ids.get(id) ?? randomUUID(),
    name,
    node,
    created: created.toISOString(),
    ...(message === undefined ? {} : { message }),
    parent: parent === null ? null : (ids.get(parent) ?? null),
    consistency: 'consistent',
    ...content,
  };
}

/** The addresses of a machine: kept where nobody else has them, the same in all its snapshots. */
class MachineMacs {
  readonly #macs: MacClaims;
  readonly #warnings: string[];
  readonly #known = new Map<string, string>();

  constructor(macs: MacClaims, warnings: string[]) {
    this.#macs = macs;
    this.#warnings = warnings;
  }

  /** Knows addresses that the user gave to this machine: its snapshots may have them, too. */
  know(own: readonly string[]): void {
    for (const mac of own) this.#known.set(mac, mac);
  }

  /** @param used addresses of the state so far. */
  for(wanted: string | undefined, used: ReadonlySet<string>): string {
    if (wanted === undefined) return this.#macs.take();
    const known = this.#known.get(wanted);
    if (known !== undefined && !used.has(known)) return known;
    const mac = known === undefined ? this.#choose(wanted) : this.#macs.take();
    this.#known.set(wanted, mac);
    return mac;
  }

  #choose(wanted: string): string {
    try {
      return this.#macs.choose(wanted, undefined);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      const mac = this.#macs.take();
      this.#warnings.push(`MAC address ${wanted} became ${mac}: ${error.message}`);
      return mac;
    }
  }
}

/**
 * What the user says stands in for what the machine has. NICs that the user gives are claimed
 * before those of the machine, which may well be the same; without an address one keeps that of its
 * place.
 */
function presentHardware(
  { machine, hardware: request }: MachineImport,
  claims: MacClaims,
  macs: MachineMacs,
): Hardware {
  const { nics, ...sizes } = machine.hardware;
  if (request.nics === undefined) {
    return changeHardware(request, claims, hardwareFrom(machine.hardware, macs));
  }
  const given = changeHardware(request, claims, hardwareFrom({ ...sizes, nics: [] }, macs));
  const asked = request.nics.map(({ mac }) => mac);
  macs.know(given.nics.filter((_, index) => asked[index] !== undefined).map(({ mac }) => mac));
  const used = new Set(given.nics.map(({ mac }) => mac));
  return {
    ...given,
    nics: given.nics.map((nic, index) => {
      const own = asked[index] === undefined ? nics[index]?.mac : undefined;
      return own === undefined || used.has(own) ? nic : { ...nic, mac: macs.for(own, used) };
    }),
  };
}

function hardwareFrom(
  { vcpus = DEFAULT_HARDWARE.vcpus, memory = DEFAULT_HARDWARE.memory, nics }: MachineHardware,
  macs: MachineMacs,
): Hardware {
  const used = new Set<string>();
  const records = nics.slice(0, MAX_NICS).map((nic): NicRecord => {
    const mac = macs.for(nic.mac, used);
    used.add(mac);
    return { ...nicOf(nic), mac };
  });
  return { vcpus, memory, nics: records };
}
