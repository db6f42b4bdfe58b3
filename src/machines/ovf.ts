/** OVF descriptors (DMTF DSP0243, versions 1 and 2): one virtual system with its disks. */
import { MiB } from '../common/units.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import {
  type DiskDraft,
  EFI_OMITTED,
  type FileDraft,
  type Machine,
  type MachineHardware,
  type MachineNic,
  type NicMode,
} from './machine.js';
import { allocationUnit } from './ovf-units.js';
import { byteCount, entryOf, macAddress, wholeNumber } from './values.js';
import type { XmlElement } from './xml.js';

/** CIM resource types that are taken over. */
const CPU = '3';
const MEMORY = '4';
const ETHERNET = '10';
/** Disk drives; storage extents are what XenCenter calls the disks that it exports. */
const DISKS = ['17', '19'];
/** Those that are told about. */
const OMITTED: Readonly<Record<string, string>> = {
  '14': 'floppy drive',
  '15': 'CD drive',
  '16': 'CD drive',
  '23': 'USB controller',
  '24': 'graphics adapter',
  '35': 'sound card',
};

/** Names of networks that say what they are: VirtualBox's and VMware's. */
const MODES: Readonly<Record<string, NicMode>> = {
  nat: 'nat',
  natnetwork: 'nat',
  bridged: 'bridged',
  hostonly: 'host-only',
  internal: 'internal',
  null: 'none',
  // What vCloud Director connects an adapter to that is not connected.
  none: 'none',
};

const FORMATS: readonly [name: string, format: string][] = [
  ['vmdk', 'vmdk'],
  ['qcow2', 'qcow2'],
  ['vhdx', 'vhdx'],
];
/** What oVirt says beside the format, which is that of a VMDK for its raw files, too. */
const VOLUME_FORMATS: Readonly<Record<string, string>> = { cow: 'qcow2', raw: 'raw' };

/** A file that the descriptor refers to. */
export interface OvfFile {
  readonly names: readonly string[];
  /** Bytes, where it is said. */
  readonly size?: number;
}

export interface OvfMachine extends Machine<DiskDraft> {
  /** Files of the disks that are in use, by the first of their names. */
  readonly files: ReadonlyMap<string, OvfFile>;
}

/** @throws DiskError `damaged`, `not-supported`, naming `path`. */
export function readOvf(path: string, root: XmlElement): OvfMachine {
  if (root.child('Section') !== undefined || root.child('Content') !== undefined) {
    throw unsupported(path, 'OVF 0.9 is not read', 'convert it to OVF 1 with ovftool');
  }
  const system = onlySystem(path, root);
  const [section, ...more] = system.all('VirtualHardwareSection');
  if (section === undefined) throw damaged(path, 'its virtual system has no hardware');
  const warnings = more.length === 0 ? [] : ['only the first of its hardware sections is read'];
  const items = itemsOf(root, section);
  const files = new Map<string, OvfFile>();
  const disks = inPlaces(items.filter((item) => DISKS.includes(typeOf(item)))).map((item) =>
    readDisk(path, { root, system }, item, files),
  );
  for (const [type, what] of Object.entries(OMITTED)) {
    const count = items.filter((item) => typeOf(item) === type).length;
    if (count > 0) warnings.push(`${what} is not taken over`);
  }
  if (startsByEfi(system, section)) warnings.push(EFI_OMITTED);
  for (const item of items) {
    // NVDIMMs of VMware and the firmware settings of VirtualBox have files, and types of their own.
    const [, kind] = resourceOf(item);
    const isKnown = DISKS.includes(typeOf(item)) || Object.hasOwn(OMITTED, typeOf(item));
    if (kind === undefined || isKnown) continue;
    warnings.push(`${quoteName(slotOf(item))} and its file are not taken over`);
  }
  return {
    name: system.child('Name')?.text || (system.attribute('id') ?? ''),
    hardware: readHardware(path, root, items, warnings),
    disks,
    snapshots: [],
    current: null,
    warnings: [...new Set(warnings)],
    files,
  };
}

function onlySystem(path: string, root: XmlElement): XmlElement {
  const systems: XmlElement[] = [];
  const visit = (element: XmlElement): void => {
    systems.push(...element.all('VirtualSystem'));
    for (const collection of element.all('VirtualSystemCollection')) visit(collection);
  };
  visit(root);
  const [system] = systems;
  if (system !== undefined && systems.length === 1) return system;
  if (system === undefined) throw damaged(path, 'describes no virtual system');
  const names = systems.slice(0, 5).map((each) => quoteName(each.attribute('id') ?? ''));
  throw unsupported(
    path,
    `describes ${systems.length} virtual systems: ${names.join(', ')}`,
    'import their disks one by one: unpack it, then layerdisk import DISK.vmdk VM',
  );
}

/** The items of the default configuration. */
function itemsOf(root: XmlElement, section: XmlElement): XmlElement[] {
  const options = root.child('DeploymentOptionSection')?.all('Configuration') ?? [];
  const chosen = options.find((each) => isYes(each.attribute('default'))) ?? options[0];
  const id = chosen?.attribute('id');
  const items = section.all('Item', 'StorageItem', 'EthernetPortItem').filter((item) => {
    // Bounds say what values are possible, not what the machine has.
    if ((item.attribute('bound') ?? 'normal') !== 'normal') return false;
    const wanted = item.attribute('configuration');
    return wanted === undefined || (id !== undefined && wanted.split(/\s+/).includes(id));
  });
  return withoutReplaced(items);
}

/** An item of a configuration stands in for the general one of its instance. */
function withoutReplaced(items: readonly XmlElement[]): XmlElement[] {
  const instanceOf = (item: XmlElement): string => item.child('InstanceID')?.text ?? '';
  const own = new Set(
    items.filter((item) => item.attribute('configuration') !== undefined).map(instanceOf),
  );
  own.delete('');
  return items.filter(
    (item) => item.attribute('configuration') !== undefined || !own.has(instanceOf(item)),
  );
}

/** As VMware's and VirtualBox's own elements say it. */
function startsByEfi(system: XmlElement, section: XmlElement): boolean {
  const isOfVmware = section
    .all('Config')
    .some((each) => each.attribute('key') === 'firmware' && each.attribute('value') === 'efi');
  const firmware = system.find('Machine', 'Hardware', 'Firmware')?.attribute('type');
  return isOfVmware || firmware?.startsWith('EFI') === true;
}

function isYes(text: string | undefined): boolean {
  return text === 'true' || text === '1';
}

function typeOf(item: XmlElement): string {
  return item.child('ResourceType')?.text ?? '';
}

/**
 * Devices in the order of their places on what they are attached to, which comes in the order of
 * the first of each; as they are written where one has no place.
 */
function inPlaces(devices: readonly XmlElement[]): XmlElement[] {
  const parents = devices.map((device) => device.child('Parent')?.text ?? '');
  const sorted = devices.map((device, index) => {
    const place = device.child('AddressOnParent')?.text ?? '';
    const parent = parents.indexOf(parents[index] ?? '');
    return { device, parent, place: /^\d+$/.test(place) ? Number(place) : Number.NaN };
  });
  if (sorted.some(({ place }) => Number.isNaN(place))) return [...devices];
  sorted.sort((a, b) => a.parent - b.parent || a.place - b.place);
  return sorted.map(({ device }) => device);
}

function readHardware(
  path: string,
  root: XmlElement,
  items: readonly XmlElement[],
  warnings: string[],
): MachineHardware {
  // Where instances have no numbers, what a configuration has comes after what it replaces.
  const cpu = items.findLast((item) => typeOf(item) === CPU)?.child('VirtualQuantity')?.text;
  const memory = items.findLast((item) => typeOf(item) === MEMORY);
  const size = memory?.child('VirtualQuantity')?.text;
  const unit = allocationUnit(path, memory?.child('AllocationUnits')?.text, MiB);
  return {
    ...(cpu === undefined ? {} : { vcpus: wholeNumber(path, 'its number of CPUs', cpu) }),
    ...(size === undefined ? {} : { memory: byteCount(path, 'its memory', size, unit) }),
    nics: inPlaces(items.filter((item) => typeOf(item) === ETHERNET)).map((item, index) =>
      readNic(root, item, index, warnings),
    ),
  };
}

function readNic(
  root: XmlElement,
  item: XmlElement,
  index: number,
  warnings: string[],
): MachineNic {
  const network = item.child('Connection')?.text ?? '';
  const own = networkOfOurs(root, network);
  // oVirt has it under a name of its own, and the place on the bus as the address.
  const mac = item
    .all('Address', 'MACAddress')
    .map(({ text }) => macAddress(text))
    .find((each) => each !== undefined);
  if (own !== undefined) return { ...own, ...(mac === undefined ? {} : { mac }) };
  const mode = network === '' ? 'nat' : entryOf(MODES, network.toLowerCase().replace(/[- ]/g, ''));
  if (mode === undefined) {
    warnings.push(`network adapter ${index}: network ${quoteName(network)} is taken for nat`);
  }
  return {
    mode: mode ?? 'nat',
    ...(mode === undefined ? { network } : {}),
    ...(mac === undefined ? {} : { mac }),
  };
}

/** What an export of ours says of a network that has a name: `Internal network lan`. */
function networkOfOurs(root: XmlElement, name: string): MachineNic | undefined {
  const networks = root.child('NetworkSection')?.all('Network') ?? [];
  const description = networks
    .find((each) => each.attribute('name') === name)
    ?.child('Description')?.text;
  const [, word = '', network] = /^(\w+) network (\S+)$/.exec(description ?? '') ?? [];
  const mode = entryOf(MODES, word.toLowerCase());
  return mode === undefined || network === undefined ? undefined : { mode, network };
}

/**
 * A value that may be that of a property of the system, as `${size}`: the one that it has where
 * nobody chooses another.
 */
function propertyOr(text: string, system: XmlElement): string {
  const name = /^\$\{(.+)\}$/.exec(text)?.[1];
  if (name === undefined) return text;
  for (const section of system.all('ProductSection')) {
    const found = section.all('Property').find((property) => {
      const owner = [section.attribute('class'), property.attribute('key')];
      return [...owner, section.attribute('instance')].filter(Boolean).join('.') === name;
    });
    if (found !== undefined) return found.attribute('value') ?? text;
  }
  return text;
}

function slotOf(item: XmlElement): string {
  return item.child('ElementName')?.text || `disk ${item.child('InstanceID')?.text ?? ''}`;
}

/** What it is backed by, as it is written, and in parts where these are known. */
function resourceOf(item: XmlElement): [text: string, kind?: string, id?: string] {
  const text = item.child('HostResource')?.text ?? '';
  const [, kind, id] = /^(?:ovf:)?\/*(disk|file)\/(.+)$/.exec(text) ?? [];
  return kind === undefined || id === undefined ? [text] : [text, kind, id];
}

function readDisk(
  path: string,
  { root, system }: { readonly root: XmlElement; readonly system: XmlElement },
  item: XmlElement,
  files: Map<string, OvfFile>,
): DiskDraft {
  const slot = slotOf(item);
  const [resource, kind, id = ''] = resourceOf(item);
  if (kind === 'file') return { slot, files: [useFile(path, root, id, 'auto', files)] };
  const disks = root.child('DiskSection')?.all('Disk') ?? [];
  const disk = disks.find((each) => each.attribute('diskId') === id);
  if (kind === undefined || disk === undefined) {
    throw damaged(path, `${quoteName(slot)} refers to ${quoteName(resource)}, which is not in it`);
  }
  // oVirt writes an empty one for disks that stand alone.
  if ((disk.attribute('parentRef') ?? '') !== '') {
    throw unsupported(path, `disk ${quoteName(id)} is a delta on another disk`);
  }
  // Some write an empty one for disks that are empty.
  const reference = disk.attribute('fileRef') ?? '';
  if (reference === '') {
    const unit = allocationUnit(path, disk.attribute('capacityAllocationUnits'), 1);
    const capacity = propertyOr(disk.attribute('capacity') ?? '', system);
    return {
      slot,
      files: [],
      size: byteCount(path, `capacity of ${quoteName(id)}`, capacity, unit),
    };
  }
  return { slot, files: [useFile(path, root, reference, formatOf(disk), files)] };
}

function formatOf(disk: XmlElement): string {
  const word = (disk.attribute('volume-format') ?? '').toLowerCase();
  const uri = (disk.attribute('format') ?? '').toLowerCase();
  return (
    entryOf(VOLUME_FORMATS, word) ?? FORMATS.find(([name]) => uri.includes(name))?.[1] ?? 'auto'
  );
}

function useFile(
  path: string,
  root: XmlElement,
  id: string,
  format: string,
  files: Map<string, OvfFile>,
): FileDraft {
  const references = root.child('References')?.all('File') ?? [];
  const file = references.find((each) => each.attribute('id') === id);
  const href = file?.attribute('href') ?? '';
  if (file === undefined || href === '') {
    throw damaged(path, `its references have no file ${quoteName(id)}`);
  }
  const compression = file.attribute('compression') ?? 'identity';
  if (compression !== 'identity') {
    throw unsupported(
      path,
      `${quoteName(href)} is compressed with ${quoteName(compression)}`,
      'unpack it, decompress the file (gunzip) and import that: layerdisk import DISK.vmdk VM',
    );
  }
  if (file.attribute('chunkSize') !== undefined) {
    throw unsupported(
      path,
      `${quoteName(href)} is split into chunks`,
      'unpack it, join them (cat) and import that: layerdisk import DISK.vmdk VM',
    );
  }
  const size = file.attribute('size');
  const names = [...new Set([href, decoded(href)])];
  files.set(names[0]!, {
    names,
    ...(size === undefined ? {} : { size: wholeNumber(path, `size of ${quoteName(href)}`, size) }),
  });
  return { names, format };
}

/** A reference is a URL: a space in a name may be written `%20`. */
function decoded(href: string): string {
  try {
    return decodeURIComponent(href);
  } catch (error) {
    // A name with a percent sign that is just that.
    if (error instanceof URIError) return href;
    throw error;
  }
}
