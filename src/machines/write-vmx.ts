/**
 * VMware's configuration of a machine (`.vmx`) whose disks are VMDK descriptors of the exposed raw
 * files. Their mode is independent: VMware leaves such disks out of its own snapshots.
 */
import { createHash } from 'node:crypto';
import { MiB } from '../common/units.js';
import { unsupported } from '../formats/image-error.js';
import {
  DEFAULT_NETWORK,
  memoryNotes,
  memoryUnits,
  type OutputMachine,
  type OutputNic,
  type WrittenMachine,
} from './machine-output.js';

/** Workstation 10 and ESXi 5.5, and all that came after. */
const HARDWARE_VERSION = 10;
/** VMware takes memory in fours of MiB. */
const MEMORY_UNIT = 4 * MiB;
/** Places of one SCSI controller, without the controller's own (7); four controllers. */
const SCSI_PLACES = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];
const MAX_CONTROLLERS = 4;
const MAX_NICS = 10;

type Entry = readonly [key: string, value: string | number];

/**
 * @param fileOf the VMDK descriptor of each disk, as the configuration names it.
 * @throws DiskError `not-supported` for what VMware has no room for.
 */
export function vmxConfiguration(
  machine: OutputMachine,
  fileOf: (index: number) => string,
): WrittenMachine {
  const { name, id, vcpus, memory, disks, nics } = machine;
  const places = SCSI_PLACES.length * MAX_CONTROLLERS;
  if (disks.length > places) throw unsupported(name, `more than ${places} disks in VMware`);
  if (nics.length > MAX_NICS) throw unsupported(name, `more than ${MAX_NICS} NICs in VMware`);
  const memoryMib = memoryUnits(memory, MEMORY_UNIT) * (MEMORY_UNIT / MiB);
  const entries: Entry[] = [
    ['.encoding', 'UTF-8'],
    ['config.version', 8],
    ['virtualHW.version', HARDWARE_VERSION],
    ['displayName', name],
    ['guestOS', 'otherlinux-64'],
    ['uuid.bios', vmwareBytes(Buffer.from(id.replaceAll('-', ''), 'hex'))],
    ['uuid.action', 'keep'],
    ['numvcpus', vcpus],
    ['memsize', memoryMib],
    // Without these there is no room for PCI devices.
    ['pciBridge0.present', 'TRUE'],
    ...[4, 5, 6, 7].flatMap((number): Entry[] => [
      [`pciBridge${number}.present`, 'TRUE'],
      [`pciBridge${number}.virtualDev`, 'pcieRootPort'],
      [`pciBridge${number}.functions`, 8],
    ]),
    ['disk.EnableUUID', 'TRUE'],
    ...disks.flatMap((_, index) => diskEntries(index, fileOf(index))),
    ...nics.flatMap(nicEntries),
  ];
  return {
    text: `${entries.map(([key, value]) => `${key} = "${escaped(String(value))}"`).join('\n')}\n`,
    notes: [...memoryNotes(memory, memoryMib, MiB), ...networkNotes(nics)],
  };
}

function diskEntries(index: number, file: string): Entry[] {
  const controller = `scsi${Math.floor(index / SCSI_PLACES.length)}`;
  const place = SCSI_PLACES[index % SCSI_PLACES.length];
  const disk = `${controller}:${place}`;
  const isFirst = index % SCSI_PLACES.length === 0;
  return [
    ...(isFirst
      ? ([
          [`${controller}.present`, 'TRUE'],
          [`${controller}.virtualDev`, 'lsilogic'],
        ] as const)
      : []),
    [`${disk}.present`, 'TRUE'],
    [`${disk}.fileName`, file],
    [`${disk}.mode`, 'independent-persistent'],
  ];
}

function nicEntries(nic: OutputNic, index: number): Entry[] {
  const card = `ethernet${index}`;
  return [
    [`${card}.present`, 'TRUE'],
    [`${card}.virtualDev`, 'vmxnet3'],
    [`${card}.addressType`, 'static'],
    [`${card}.address`, nic.mac],
    // The address is not from the range that VMware gives out by hand.
    [`${card}.checkMACAddress`, 'FALSE'],
    ...connection(nic).map(([key, value]): Entry => [`${card}.${key}`, value]),
  ];
}

function connection(nic: OutputNic): Entry[] {
  switch (nic.mode) {
    case 'nat':
      return [['connectionType', 'nat']];
    case 'bridged':
      return [['connectionType', 'bridged']];
    case 'host-only':
      return [['connectionType', 'hostonly']];
    case 'internal':
      return [
        ['connectionType', 'pvn'],
        ['pvnID', segmentId(nic.network ?? DEFAULT_NETWORK)],
      ];
    case 'none':
      return [
        ['connectionType', 'none'],
        ['startConnected', 'FALSE'],
      ];
  }
}

/** A LAN segment is known by 16 bytes, of which VMware's own begin with 52. */
function segmentId(network: string): string {
  const bytes = createHash('sha256').update(`layerdisk\0${network}`).digest().subarray(0, 16);
  bytes[0] = 0x52;
  return vmwareBytes(bytes);
}

/** 16 bytes as VMware writes them: `56 4d 31 ...-... 0e`. */
function vmwareBytes(bytes: Buffer): string {
  const pairs = [...bytes].map((byte) => byte.toString(16).padStart(2, '0'));
  return `${pairs.slice(0, 8).join(' ')}-${pairs.slice(8).join(' ')}`;
}

/** `|22` stands for a quote; line ends would end the value. */
function escaped(text: string): string {
  return text.replace(
    /["|\p{Cc}]/gu,
    (char) => `|${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

function networkNotes(nics: readonly OutputNic[]): string[] {
  const notes: string[] = [];
  if (nics.some(({ mode }) => mode === 'bridged')) {
    notes.push(
      'bridged NICs are on the bridge that VMware has: the name of ours is not taken over',
    );
  }
  if (nics.some(({ mode }) => mode === 'internal')) {
    notes.push('internal networks are LAN segments: guests of layerdisk run are not on them');
  }
  return notes;
}
