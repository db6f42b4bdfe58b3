/** VMware's configuration of a machine (`.vmx`) and of its snapshots (`.vmsd`): `key = "value"`. */
import { MiB } from '../common/units.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import {
  type DiskDraft,
  EFI_OMITTED,
  MAX_SNAPSHOTS,
  type Machine,
  type MachineDiskKind,
  type MachineHardware,
  type MachineNic,
  type MachineSnapshot,
  type NicMode,
} from './machine.js';
import { byteCount, entryOf, macAddress, namesToTry, timeOf, wholeNumber } from './values.js';
import { decodeText } from './xml.js';

/** Keys in lower case. */
export type Dictionary = ReadonlyMap<string, string>;

/** Blanks of one line only: over many empty ones the search takes minutes. */
const ENCODING = /^[ \t]*\.encoding[ \t]*=[ \t]*"([\w.:-]+)"/im;
const SLOT = /^(scsi|sata|ide|nvme)(\d+):(\d+)$/;
const BUSES = ['scsi', 'sata', 'nvme', 'ide'];
const DISK_TYPES = ['', 'disk', 'scsi-harddisk', 'ata-harddisk'];

const MODES: Readonly<Record<string, NicMode>> = {
  nat: 'nat',
  bridged: 'bridged',
  hostonly: 'host-only',
  pvn: 'internal',
  none: 'none',
};
/** What VMware's installers make of the networks with fixed numbers; all others are private. */
const VNETS: Readonly<Record<string, NicMode>> = {
  vmnet0: 'bridged',
  vmnet1: 'host-only',
  vmnet8: 'nat',
};

/** @throws DiskError `damaged` for what is no such file. */
export function readDictionary(path: string, bytes: Buffer): Dictionary {
  const first = bytes.toString('latin1');
  const label = ENCODING.exec(first)?.[1] ?? 'utf-8';
  const entries = new Map<string, string>();
  for (const line of decodeText(path, bytes, label).split(/\r?\n/)) {
    // No expression with several runs of blanks: a long line of them would take minutes.
    const end = Math.max(0, line.indexOf('='));
    const key = line.slice(0, end).trim();
    if (key === '' || key.startsWith('#')) continue;
    const value = line.slice(end + 1).trim();
    entries.set(key.toLowerCase(), withoutEscapes(unquoted(value)));
  }
  if (first.includes('\0') || entries.size === 0) {
    throw damaged(path, 'is no VMware configuration');
  }
  return entries;
}

/** A comment may follow what is quoted. */
function unquoted(value: string): string {
  const end = value.startsWith('"') ? value.indexOf('"', 1) : -1;
  const isRemark =
    end > 0 &&
    value
      .slice(end + 1)
      .trimStart()
      .startsWith('#');
  return (isRemark ? value.slice(0, end) : value).replace(/^"/, '').replace(/"$/, '');
}

/** `|22` stands for a quote, `|0A` for a line's end. */
function withoutEscapes(text: string): string {
  return text.replace(/\|([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

/**
 * @param vmsd what the `.vmsd` beside it says; undefined when there is none.
 * @throws DiskError `damaged`, `not-supported`, naming `path`.
 */
export function readVmware(
  path: string,
  vmx: Dictionary,
  vmsd: Dictionary | undefined,
): Machine<DiskDraft> {
  if (isEncrypted(vmx)) {
    throw unsupported(path, 'the machine is encrypted', 'decrypt it in VMware first');
  }
  if (!['config.version', 'virtualhw.version', 'memsize'].some((key) => vmx.has(key))) {
    throw damaged(path, 'is no VMware configuration');
  }
  const warnings: string[] = [];
  const hardware = readHardware(path, vmx, warnings);
  const disks = readDisks(path, vmx, warnings);
  noteOmissions(vmx, warnings);
  const snapshots = vmsd === undefined ? [] : readSnapshots(path, vmsd, hardware);
  if (snapshots.length > 0) {
    warnings.push('snapshots have the present hardware: VMware keeps theirs in .vmsn files');
  }
  const current = vmsd?.get('snapshot.current') ?? '0';
  return {
    name: vmx.get('displayname') ?? '',
    hardware,
    disks,
    snapshots,
    current: snapshots.some(({ id }) => id === current) ? current : null,
    warnings,
  };
}

/** In part is what a machine with a TPM is: its disks and most of its settings are plain then. */
function isEncrypted(vmx: Dictionary): boolean {
  const isPartial = vmx.get('vmx.encryptiontype')?.toLowerCase() === 'partial';
  return !isPartial && (vmx.has('encryption.keysafe') || vmx.has('encryption.data'));
}

function isTrue(text: string | undefined): boolean {
  return text?.toLowerCase() === 'true';
}

function readHardware(path: string, vmx: Dictionary, warnings: string[]): MachineHardware {
  const memory = vmx.get('memsize');
  const nics: MachineNic[] = [];
  const numbers = [...vmx.keys()]
    .map((key) => /^ethernet(\d{1,3})\.present$/.exec(key)?.[1])
    .filter((number) => number !== undefined);
  for (const number of numbers.map(Number).sort((a, b) => a - b)) {
    if (isTrue(vmx.get(`ethernet${number}.present`))) {
      nics.push(readNic(vmx, `ethernet${number}`, warnings));
    }
  }
  return {
    vcpus: wholeNumber(path, 'numvcpus', vmx.get('numvcpus') ?? '1'),
    ...(memory === undefined ? {} : { memory: byteCount(path, 'memsize', memory, MiB) }),
    nics,
  };
}

function readNic(vmx: Dictionary, name: string, warnings: string[]): MachineNic {
  const field = (key: string) => vmx.get(`${name}.${key}`);
  const isStatic = (field('addresstype') ?? '').toLowerCase() === 'static';
  // One that was set once is left behind when VMware or vCenter chooses again.
  const [first, second] = [macAddress(field('generatedaddress')), macAddress(field('address'))];
  const mac = isStatic ? (second ?? first) : (first ?? second);
  const type = (field('connectiontype') ?? 'bridged').toLowerCase();
  // A LAN segment has a number and no name; two of them are two networks.
  const segment = type === 'pvn' ? field('pvnid') : undefined;
  const network = segment ?? field('networkname') ?? field('vnet');
  const vnet = (field('vnet') ?? '').toLowerCase().replace('/dev/', '');
  const mode = type === 'custom' ? (entryOf(VNETS, vnet) ?? 'internal') : entryOf(MODES, type);
  if (mode === undefined) {
    warnings.push(`${name}: ${quoteName(type)} is not taken over; it has mode none`);
  }
  return {
    mode: mode ?? 'none',
    ...(network === undefined || network === '' ? {} : { network }),
    ...(mac === undefined ? {} : { mac }),
  };
}

/** Modes of disks that are no part of snapshots; all others are normal. */
const KINDS: Readonly<Record<string, MachineDiskKind>> = {
  'independent-persistent': 'write-through',
  'independent-nonpersistent': 'immutable',
};

/** In the order of buses, controllers and places. */
function readDisks(path: string, vmx: Dictionary, warnings: string[]): DiskDraft[] {
  const slots = [...vmx.keys()]
    .filter((key) => key.endsWith('.present'))
    .map((key) => SLOT.exec(key.slice(0, -'.present'.length)))
    .filter((match) => match !== null)
    .filter(([slot]) => isTrue(vmx.get(`${slot}.present`)))
    .map(([slot, bus = '', controller, place]) => ({
      slot,
      order: [BUSES.indexOf(bus), Number(controller), Number(place)] as const,
    }))
    .sort(({ order: a }, { order: b }) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  const disks: DiskDraft[] = [];
  for (const { slot } of slots) {
    const type = (vmx.get(`${slot}.devicetype`) ?? '').toLowerCase();
    const file = vmx.get(`${slot}.filename`) ?? '';
    if (type.includes('cdrom') || (type === '' && /\.iso$/i.test(file))) {
      warnings.push(`CD drive ${slot} is not taken over`);
    } else if (!DISK_TYPES.includes(type) || file === '') {
      const what = file === '' ? 'no file' : `the device type ${quoteName(type)}`;
      throw unsupported(path, `${slot} has ${what}`, 'make it a disk of files, or take it out');
    } else {
      const kind = entryOf(KINDS, (vmx.get(`${slot}.mode`) ?? '').toLowerCase());
      const files = [{ names: namesToTry(file), format: 'vmdk' }];
      disks.push({ slot, files, ...(kind === undefined ? {} : { kind }) });
    }
  }
  return disks;
}

function noteOmissions(vmx: Dictionary, warnings: string[]): void {
  if ((vmx.get('checkpoint.vmstate') ?? '') !== '') {
    warnings.push('the suspended state is not taken over: the machine starts as after a power cut');
  }
  if (isTrue(vmx.get('vtpm.present'))) {
    warnings.push('the TPM and what it holds are not taken over');
  }
  if (vmx.get('firmware')?.toLowerCase() === 'efi') warnings.push(EFI_OMITTED);
  if (isTrue(vmx.get('floppy0.present'))) warnings.push('floppy drive floppy0 is not taken over');
  if (['usb', 'ehci', 'usb_xhci'].some((key) => isTrue(vmx.get(`${key}.present`)))) {
    warnings.push('USB controllers are not taken over');
  }
  for (const [key, value] of vmx) {
    if (!/^sharedfolder\d+\.present$/.test(key) || !isTrue(value)) continue;
    const name = vmx.get(key.replace('present', 'guestname')) ?? '';
    warnings.push(`shared folder ${quoteName(name)} is not taken over`);
  }
}

function readSnapshots(
  path: string,
  vmsd: Dictionary,
  hardware: MachineHardware,
): MachineSnapshot<DiskDraft>[] {
  const numbers = [...vmsd.keys()]
    .map((key) => /^snapshot(\d{1,6})\.uid$/.exec(key)?.[1])
    .filter((number) => number !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
  if (numbers.length > MAX_SNAPSHOTS) {
    throw unsupported(path, `more than ${MAX_SNAPSHOTS} snapshots`);
  }
  const ids = new Set(numbers.map((number) => vmsd.get(`snapshot${number}.uid`)));
  if (ids.size !== numbers.length) throw damaged(path, 'two of its snapshots have one uid');
  const snapshots = numbers.map((number) => {
    const field = (key: string) => vmsd.get(`snapshot${number}.${key}`);
    const parent = field('parent') ?? '0';
    const created = timeOf(microseconds(field('createtimehigh'), field('createtimelow')) / 1000);
    return {
      id: field('uid') ?? '',
      name: field('displayname') ?? '',
      description: field('description') ?? '',
      ...(created === undefined ? {} : { created }),
      parent: ids.has(parent) ? parent : null,
      hardware,
      disks: snapshotDisks(field),
    };
  });
  checkTree(path, snapshots);
  return snapshots;
}

/** The file names parents by number: nothing in its shape keeps them from going round. */
function checkTree(path: string, snapshots: readonly MachineSnapshot<DiskDraft>[]): void {
  const parents = new Map(snapshots.map(({ id, parent }) => [id, parent]));
  const rooted = new Set<string>();
  for (const { id: start } of snapshots) {
    const way = new Set<string>();
    for (let id: string | null = start; id !== null && !rooted.has(id); ) {
      if (way.has(id)) throw damaged(path, `its snapshot ${quoteName(start)} is its own ancestor`);
      way.add(id);
      id = parents.get(id) ?? null;
    }
    for (const id of way) rooted.add(id);
  }
}

/** Both halves are written as signed numbers of 32 bits. */
function microseconds(high: string | undefined, low: string | undefined): number {
  const halves = [high, low].map((text) => (/^-?\d+$/.test(text ?? '') ? Number(text) >>> 0 : -1));
  const [upper = -1, lower = -1] = halves;
  return upper < 0 || lower < 0 ? -1 : upper * 2 ** 32 + lower;
}

/** The files named here are those that were frozen when the snapshot was taken. */
function snapshotDisks(field: (key: string) => string | undefined): DiskDraft[] {
  const disks: DiskDraft[] = [];
  for (let index = 0; ; index += 1) {
    const file = field(`disk${index}.filename`);
    if (file === undefined || file === '') return disks;
    const slot = field(`disk${index}.node`) ?? `disk${index}`;
    disks.push({ slot, files: [{ names: namesToTry(file), format: 'vmdk' }] });
  }
}
