/**
 * VirtualBox's settings of one machine (`.vbox`): hardware, media registry, snapshot tree.
 *
 * Read are settings of VirtualBox 4.0 and later (versions 1.11 to 1.19 and what follows): those
 * before keep the registry elsewhere. Storage controllers lie beside `Hardware` in older ones and
 * inside it in newer ones.
 */
import { MiB } from '../common/units.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import {
  type DiskDraft,
  EFI_OMITTED,
  type FileDraft,
  MAX_SNAPSHOTS,
  type Machine,
  type MachineDiskKind,
  type MachineHardware,
  type MachineNic,
  type MachineSnapshot,
  type NicMode,
} from './machine.js';
import { byteCount, entryOf, macAddress, namesToTry, timeOf, wholeNumber } from './values.js';
import type { XmlElement } from './xml.js';

/** How many disks VirtualBox lets stand on each other is not stated; snapshots are 250 at most. */
const MAX_DEPTH = 1000;

const FORMATS: Readonly<Record<string, string>> = {
  vdi: 'vdi',
  vmdk: 'vmdk',
  vhd: 'vhd',
  vhdx: 'vhdx',
  qcow: 'qcow2',
  raw: 'raw',
};

/** What an adapter is attached to, by the element that says so. */
const MODES: Readonly<Record<string, NicMode>> = {
  NAT: 'nat',
  NATNetwork: 'nat',
  BridgedInterface: 'bridged',
  HostInterface: 'bridged',
  HostOnlyInterface: 'host-only',
  HostOnlyNetwork: 'host-only',
  InternalNetwork: 'internal',
};
const UNKNOWN_MODES = ['GenericInterface', 'CloudNetwork', 'VDE'];

/** Kinds of media; all others are normal. A `MultiAttach` one has differences for each machine. */
const KINDS: Readonly<Record<string, MachineDiskKind>> = {
  Writethrough: 'write-through',
  Immutable: 'immutable',
  Readonly: 'read-only',
};

interface Medium {
  readonly file: FileDraft;
  /** As VirtualBox calls it; differencing ones are `Normal`. */
  readonly kind: string;
  /** What it holds is thrown away when the machine starts. */
  readonly isReset: boolean;
  readonly parent: string | undefined;
}

type Registry = ReadonlyMap<string, Medium>;

/** @throws DiskError `damaged`, `not-supported`, naming `path`. */
export function readVbox(path: string, root: XmlElement): Machine<DiskDraft> {
  if (root.child('MachineEncrypted') !== undefined) {
    throw unsupported(path, 'the machine is encrypted', 'decrypt it in VirtualBox first');
  }
  const machine = root.child('Machine');
  if (machine === undefined) {
    throw unsupported(path, 'has no machine', 'give the .vbox file in the folder of the machine');
  }
  const registry = readRegistry(path, machine);
  const warnings: string[] = [];
  const state = readState(path, machine, registry, warnings);
  const snapshots = readSnapshots(path, machine, registry, warnings);
  noteOmissions(machine, warnings);
  const current = uuidOf(machine.attribute('currentSnapshot'));
  if (current !== undefined && !snapshots.some(({ id }) => id === current)) {
    throw damaged(path, `its current snapshot ${quoteName(current)} is not in it`);
  }
  return {
    name: machine.attribute('name') ?? '',
    ...state,
    snapshots,
    current: current ?? null,
    warnings: [...new Set(warnings)],
  };
}

/** Braces off, lower case; undefined for nothing and for the nil UUID. */
function uuidOf(text: string | undefined): string | undefined {
  const uuid = (text ?? '').replace(/[{}\s]/g, '').toLowerCase();
  return /^[0-]*$/.test(uuid) ? undefined : uuid;
}

/** All hard disks: a differencing one lies inside the one that it stands on. */
function readRegistry(path: string, machine: XmlElement): Registry {
  const media = new Map<string, Medium>();
  const visit = (element: XmlElement, parent: string | undefined): void => {
    for (const disk of element.all('HardDisk')) {
      const uuid = uuidOf(disk.attribute('uuid'));
      if (uuid === undefined) throw damaged(path, 'a hard disk in its registry has no UUID');
      if (media.has(uuid)) throw damaged(path, `its registry has the hard disk ${uuid} twice`);
      media.set(uuid, {
        file: fileOf(path, disk),
        kind: disk.attribute('type') ?? '',
        isReset: disk.attribute('autoReset') === 'true',
        parent,
      });
      visit(disk, uuid);
    }
  };
  const disks = machine.find('MediaRegistry', 'HardDisks');
  if (disks !== undefined) visit(disks, undefined);
  return media;
}

function fileOf(path: string, disk: XmlElement): FileDraft {
  const location = disk.attribute('location') ?? '';
  const format = disk.attribute('format') ?? '';
  const known = entryOf(FORMATS, format.toLowerCase());
  // Judged when it is used: a registry may list disks that nothing is attached to.
  const isEncrypted = disk
    .all('Property')
    .some((each) => each.attribute('name') === 'CRYPT/KeyStore' && each.attribute('value') !== '');
  if (isEncrypted) return { names: [], format: `encrypted disk ${quoteName(location)}` };
  if (known === undefined) return { names: [], format: `disk of format ${quoteName(format)}` };
  if (location === '') throw damaged(path, 'a hard disk in its registry has no location');
  return { names: namesToTry(location), format: known };
}

function readState(
  path: string,
  owner: XmlElement,
  registry: Registry,
  warnings: string[],
): { hardware: MachineHardware; disks: DiskDraft[] } {
  const hardware = owner.child('Hardware');
  // VirtualBox 7.1 and later have the CPUs of ARM machines in `Platform`, beside the hardware.
  const cpus = [owner.child('Platform'), hardware?.child('Platform'), hardware];
  const counts = cpus.map((place) => place?.child('CPU')?.attribute('count'));
  const vcpus = counts.find((count) => count !== undefined) ?? '1';
  const memory = hardware?.child('Memory')?.attribute('RAMSize');
  const adapters = hardware?.child('Network')?.all('Adapter') ?? [];
  const nics = adapters
    .filter((adapter) => adapter.attribute('enabled') === 'true')
    .map((adapter) => readNic(adapter, warnings));
  const size = memory === undefined ? undefined : byteCount(path, 'its memory', memory, MiB);
  return {
    hardware: {
      vcpus: wholeNumber(path, 'its CPU count', vcpus),
      ...(size === undefined ? {} : { memory: size }),
      nics,
    },
    disks: readDisks(path, owner, registry, warnings),
  };
}

function readNic(adapter: XmlElement, warnings: string[]): MachineNic {
  const mac = macAddress(adapter.attribute('MACAddress'));
  const slot = adapter.attribute('slot') ?? '?';
  const rest = mac === undefined ? {} : { mac };
  for (const child of adapter.children) {
    const mode = entryOf(MODES, child.name);
    if (mode !== undefined) {
      const network = child.attribute('name');
      const named = network === undefined || network === '' ? {} : { network };
      return { mode, ...named, ...rest };
    }
    if (UNKNOWN_MODES.includes(child.name)) {
      warnings.push(`network adapter ${slot}: ${child.name} is not taken over; it has mode none`);
    }
  }
  return { mode: 'none', ...rest };
}

function readDisks(
  path: string,
  owner: XmlElement,
  registry: Registry,
  warnings: string[],
): DiskDraft[] {
  const controllers =
    owner.find('Hardware', 'StorageControllers') ?? owner.child('StorageControllers');
  const disks: DiskDraft[] = [];
  for (const controller of controllers?.all('StorageController') ?? []) {
    const name = controller.attribute('name') ?? '';
    for (const device of controller.all('AttachedDevice').sort(byPlace)) {
      const place = [device.attribute('port') ?? '0', device.attribute('device') ?? '0'].join(':');
      const slot = `${name} ${place}`;
      const uuid = uuidOf(device.child('Image')?.attribute('uuid'));
      if (device.attribute('type') !== 'HardDisk') {
        warnings.push(
          `${device.attribute('type') ?? 'a'} drive ${quoteName(slot)} is not taken over`,
        );
      } else if (uuid !== undefined) {
        disks.push(diskOf(path, registry, { slot, uuid }, warnings));
      }
    }
  }
  return disks;
}

/** Devices are written in the order in which they were attached. */
function byPlace(one: XmlElement, other: XmlElement): number {
  const place = (name: string) =>
    Number(one.attribute(name) ?? 0) - Number(other.attribute(name) ?? 0);
  return place('port') || place('device');
}

function diskOf(
  path: string,
  registry: Registry,
  { slot, uuid }: { readonly slot: string; readonly uuid: string },
  warnings: string[],
): DiskDraft {
  const files = chainOf(path, registry, uuid, slot);
  const named = kindOf(registry, uuid);
  const kind = entryOf(KINDS, named);
  if (named === 'Shareable') {
    warnings.push(
      `disk ${quoteName(slot)}: shareable is not supported: this VM has the disk alone`,
    );
  }
  if (kind !== 'immutable') return { slot, files, ...(kind === undefined ? {} : { kind }) };
  const kept = keptFiles(registry, uuid, files);
  if (kept.length < files.length) {
    warnings.push(
      `disk ${quoteName(slot)} is immutable: ${quoteName(files[0]?.names[0] ?? '')} is left out, ` +
        'as VirtualBox throws it away at the next start',
    );
  }
  return { slot, files: kept, kind };
}

/** The files of an immutable disk without those that the next start would empty. */
function keptFiles(registry: Registry, uuid: string, files: readonly FileDraft[]): FileDraft[] {
  let medium = registry.get(uuid);
  let left = 0;
  while (medium?.isReset === true && medium.parent !== undefined) {
    left += 1;
    medium = registry.get(medium.parent);
  }
  return files.slice(left);
}

/** The kind of a disk is that of what is at the bottom of its chain, which was found to end. */
function kindOf(registry: Registry, uuid: string): string {
  let medium = registry.get(uuid);
  while (medium?.parent !== undefined) medium = registry.get(medium.parent);
  return medium?.kind ?? '';
}

/** The files of a disk, top first, as the registry nests them. */
function chainOf(path: string, registry: Registry, uuid: string, slot: string): FileDraft[] {
  const files: FileDraft[] = [];
  for (let next: string | undefined = uuid; next !== undefined; ) {
    const medium = registry.get(next);
    if (medium === undefined) {
      throw damaged(path, `the disk ${next} at ${quoteName(slot)} is not in its media registry`);
    }
    if (medium.file.names.length === 0) {
      throw unsupported(path, `${medium.file.format} is not read`);
    }
    if (files.length === MAX_DEPTH) throw unsupported(path, `more than ${MAX_DEPTH} disks deep`);
    files.push(medium.file);
    next = medium.parent;
  }
  return files;
}

function readSnapshots(
  path: string,
  machine: XmlElement,
  registry: Registry,
  warnings: string[],
): MachineSnapshot<DiskDraft>[] {
  const snapshots: MachineSnapshot<DiskDraft>[] = [];
  const known = new Set<string>();
  const visit = (element: XmlElement, parent: string | null): void => {
    const id = uuidOf(element.attribute('uuid'));
    if (id === undefined || known.has(id)) {
      throw damaged(path, 'a snapshot has no UUID, or that of another one');
    }
    if (snapshots.length === MAX_SNAPSHOTS) {
      throw unsupported(path, `more than ${MAX_SNAPSHOTS} snapshots`);
    }
    known.add(id);
    const name = element.attribute('name') ?? '';
    const created = timeOf(Date.parse(element.attribute('timeStamp') ?? ''));
    if (element.attribute('stateFile') !== undefined) {
      warnings.push(`snapshot ${quoteName(name)}: its saved memory is not taken over`);
    }
    snapshots.push({
      id,
      name,
      description: element.child('Description')?.text ?? '',
      ...(created === undefined ? {} : { created }),
      parent,
      // Said once, of the present state.
      ...readState(path, element, registry, []),
    });
    for (const child of element.child('Snapshots')?.all('Snapshot') ?? []) visit(child, id);
  };
  for (const root of machine.all('Snapshot')) visit(root, null);
  return snapshots;
}

function noteOmissions(machine: XmlElement, warnings: string[]): void {
  if (machine.attribute('stateFile') !== undefined) {
    warnings.push('the saved state is not taken over: the machine starts as after a power cut');
  }
  const hardware = machine.child('Hardware');
  const usb = hardware?.find('USB', 'Controllers')?.all('Controller') ?? [];
  if (usb.length > 0) warnings.push('USB controllers are not taken over');
  for (const folder of hardware?.child('SharedFolders')?.all('SharedFolder') ?? []) {
    warnings.push(`shared folder ${quoteName(folder.attribute('name') ?? '')} is not taken over`);
  }
  const firmware = hardware?.all('BIOS', 'Firmware') ?? [];
  if (firmware.some((each) => each.child('NVRAM')?.attribute('path') !== undefined)) {
    warnings.push('the firmware settings (NVRAM) are not taken over');
  }
  if (firmware.some((each) => isEfi(each.attribute('type')))) warnings.push(EFI_OMITTED);
  if (/^v/.test(hardware?.child('TrustedPlatformModule')?.attribute('type') ?? '')) {
    warnings.push('the TPM and what it holds are not taken over');
  }
}

/** `EFI`, `EFI32`, `EFI64` and `EFIDUAL`; `BIOS` else. */
function isEfi(firmware: string | undefined): boolean {
  return firmware?.startsWith('EFI') === true;
}
