/**
 * Where the partitions of a disk lie, as partx (util-linux) reads them: MBR with logical ones, and
 * GPT.
 */
import { DiskError } from '../common/errors.js';
import { SECTOR_SIZE } from '../common/units.js';
import { runCommand } from './host-command.js';

export interface Partition {
  /** Counted from 1. */
  readonly number: number;
  /** Bytes. */
  readonly offset: number;
  readonly size: number;
}

/**
 * Empty for a disk without a partition table. Does not block the thread: the disk may be our own.
 */
export async function listPartitions(path: string): Promise<Partition[]> {
  const args = ['--noheadings', '--raw', '--output', 'NR,START,SECTORS', path];
  const { code, stdout } = await runCommand('partx', args);
  if (code !== 0) return [];
  return parsePartitions(stdout);
}

/**
 * @param text lines of number, first sector and sectors; a sector is 512 bytes here, whatever the
 * disk's is.
 */
function parsePartitions(text: string): Partition[] {
  return text
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((fields) => fields.length === 3 && fields.every(Number.isSafeInteger))
    .map(([number = 0, start = 0, sectors = 0]) => ({
      number,
      offset: start * SECTOR_SIZE,
      size: sectors * SECTOR_SIZE,
    }));
}

/** @throws DiskError `not-found`, naming the partitions that there are. */
export async function findPartition(path: string, number: number): Promise<Partition> {
  const all = await listPartitions(path);
  const found = all.find((each) => each.number === number);
  if (found !== undefined) return found;
  const numbers = all.map((each) => each.number).join(', ');
  throw new DiskError('not-found', `${path} has no partition ${number}`, {
    hint: all.length === 0 ? 'it has no partition table' : `it has: ${numbers}`,
  });
}
