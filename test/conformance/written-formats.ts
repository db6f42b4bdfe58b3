/** Every subformat that we write, and what it and its readers can do. */

import { GiB, KiB, MiB, TiB } from '../../src/common/units.js';
import type { FormatName } from '../../src/formats/image-format.js';
import { SPLIT_SIZE, vmdkWriting } from '../../src/formats/vmdk/vmdk-writer.js';
import type { WrittenFormat } from '../support/written-image.js';

export interface WriterCapabilities extends WrittenFormat {
  /** Whether the subformat may have a parent. */
  readonly differencing: boolean;
  /** Absent where QEMU cannot read it. */
  readonly qemu?: {
    /** QEMU's name of the format. */
    readonly format: string;
    /** Whether `qemu-img check` knows it. */
    readonly check: boolean;
    /** Whether QEMU follows the parents. */
    readonly chains: boolean;
    /** False where QEMU reads what an image does not hold: terabytes of zeroes. */
    readonly holes?: boolean;
  };
  /** Absent where 7-Zip cannot read it. */
  readonly sevenZip?: {
    /** Whether 7-Zip follows the parents. */
    readonly chains: boolean;
    /** Bytes of which the disk's size must be a multiple; default 1. */
    readonly unit?: number;
  };
  /** Bytes of the largest disk; default 64 TiB. */
  readonly maxSize?: number;
  /** Takes the whole disk's space at once, so that every byte may be `data`. */
  readonly preallocated?: boolean;
  /**
   * Whether a unit (`unitSize` of its info) is `data` as a whole, even where less of it was
   * written; default false.
   */
  readonly wholeUnits?: boolean;
  /** Of the image that a chain begins with, where the subformat itself always has a parent. */
  readonly baseSubformat?: string;
  /** Whether a child may be larger than its parent; default false. */
  readonly resizes?: boolean;
}

const LONG = process.env.LAYERDISK_LONG === '1';
/** Split disks: thousands of files are made durable one by one. */
const SPLIT_MAX = LONG ? 4096 * SPLIT_SIZE : 20 * GiB;
/** Flat ones: largest file of ext4 is 16 TiB. */
const VMDK_MAX_SIZES: Readonly<Record<string, number>> = {
  // Every table of them is there, and walking all of 64 TiB takes its time.
  ...(LONG ? {} : { monolithicSparse: 2 * TiB }),
  monolithicFlat: 15 * TiB,
  twoGbMaxExtentSparse: SPLIT_MAX,
  twoGbMaxExtentFlat: SPLIT_MAX,
};

const RAW = {
  format: 'raw',
  differencing: false,
  qemu: { format: 'raw', check: false, chains: false },
} as const;
const VDI = {
  format: 'vdi',
  differencing: false,
  wholeUnits: true,
  qemu: { format: 'vdi', check: true, chains: false },
  sevenZip: { chains: false },
} as const;
const VHD = {
  format: 'vhd',
  differencing: false,
  qemu: { format: 'vpc', check: false, chains: false },
  sevenZip: { chains: true },
  maxSize: 2040 * GiB,
} as const;
const VHDX = {
  format: 'vhdx',
  differencing: false,
  wholeUnits: true,
  qemu: { format: 'vhdx', check: true, chains: false, holes: false },
  sevenZip: { chains: true, unit: 4 * KiB },
} as const;
const QCOW2 = {
  format: 'qcow2',
  differencing: true,
  resizes: true,
  qemu: { format: 'qcow2', check: true, chains: true },
  sevenZip: { chains: false },
} as const;

function vmdk(subformat: string): WriterCapabilities {
  const maxSize = VMDK_MAX_SIZES[subformat];
  return {
    format: 'vmdk',
    subformat,
    differencing: vmdkWriting.differencing.includes(subformat),
    qemu: { format: 'vmdk', check: true, chains: true, holes: false },
    sevenZip: { chains: false },
    ...(maxSize === undefined ? {} : { maxSize }),
  };
}

export const WRITTEN_FORMATS: readonly WriterCapabilities[] = [
  // A file of an ext4 file system ends at 16 TiB.
  { ...RAW, subformat: 'sparse', maxSize: 8 * MiB * MiB },
  { ...RAW, subformat: 'static', preallocated: true },
  { ...VDI, subformat: 'dynamic' },
  { ...VDI, subformat: 'static', preallocated: true },
  {
    format: 'vdi',
    subformat: 'diff',
    differencing: true,
    baseSubformat: 'dynamic',
    resizes: true,
  },
  { ...VHD, subformat: 'dynamic' },
  { ...VHD, subformat: 'fixed', preallocated: true },
  {
    format: 'vhd',
    subformat: 'differencing',
    differencing: true,
    baseSubformat: 'dynamic',
    sevenZip: VHD.sevenZip,
  },
  { ...VHDX, subformat: 'dynamic' },
  { ...VHDX, subformat: 'fixed', preallocated: true },
  {
    format: 'vhdx',
    subformat: 'differencing',
    differencing: true,
    baseSubformat: 'dynamic',
    sevenZip: VHDX.sevenZip,
    resizes: true,
  },
  ...vmdkWriting.subformats.map(vmdk),
  { ...QCOW2, subformat: 'plain' },
  { ...QCOW2, subformat: 'compressed' },
];

export function writtenSubformats(format: FormatName): WriterCapabilities[] {
  return WRITTEN_FORMATS.filter((each) => each.format === format);
}
