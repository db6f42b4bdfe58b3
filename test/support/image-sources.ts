/** Disks that tests have written into images: models, and vast ones that hold next to nothing. */
import { SECTOR_SIZE } from '../../src/common/units.js';
import type { Extent } from '../../src/engine/disk-image.js';
import type { ImageSource } from '../../src/formats/write-image.js';
import { type DiskModel, mergedContent, stateAt } from './disk-model.js';
import { stampedPattern } from './stamped-pattern.js';

/** What the first model says, over what the others (top first) show. */
export function modelSource(models: readonly DiskModel[]): ImageSource {
  const [top] = models;
  const content = mergedContent(models);
  return {
    virtualSize: top!.size,
    extentAt(offset, length, out) {
      const state = stateAt(top!, offset);
      let end = offset;
      while (end < offset + length && stateAt(top!, end) === state) {
        end = (Math.floor(end / top!.unitSize) + 1) * top!.unitSize;
      }
      out.state = state;
      out.length = Math.min(end, offset + length) - offset;
    },
    readAt(target, targetOffset, offset, length) {
      content.copy(target, targetOffset, offset, offset + length);
    },
  };
}

/** A range of a disk that holds stamps; whole sectors. */
export interface Island {
  readonly offset: number;
  readonly length: number;
}

const GENERATION = 7;

/** The bytes of a disk that has nothing but islands, in ascending order. */
export function readIslands(
  islands: readonly Island[],
  target: Buffer,
  targetOffset: number,
  offset: number,
  length: number,
): void {
  target.fill(0, targetOffset, targetOffset + length);
  for (const island of islands) {
    const from = Math.max(offset, island.offset);
    const to = Math.min(offset + length, island.offset + island.length);
    if (from >= to) continue;
    stampedPattern(GENERATION, from, to - from).copy(target, targetOffset + from - offset);
  }
}

export function islandSource(virtualSize: number, islands: readonly Island[]): ImageSource {
  return {
    virtualSize,
    extentAt(offset: number, length: number, out: Extent) {
      const next = islands.find((island) => island.offset + island.length > offset);
      const inside = next !== undefined && next.offset <= offset;
      const end = inside ? next.offset + next.length : (next?.offset ?? virtualSize);
      out.state = inside ? 'data' : 'unallocated';
      out.length = Math.min(end - offset, length);
    },
    readAt: (target, targetOffset, offset, length) =>
      readIslands(islands, target, targetOffset, offset, length),
  };
}

/** Islands where writers go wrong: both ends, and both sides of every limit inside the disk. */
export function delicateIslands(virtualSize: number): Island[] {
  const limits = [2 ** 31, 2 ** 32, 2 ** 40, 2 ** 41].filter((limit) => limit < virtualSize);
  return [
    { offset: 0, length: 3 * SECTOR_SIZE },
    ...limits.map((limit) => ({ offset: limit - SECTOR_SIZE, length: 2 * SECTOR_SIZE })),
    { offset: virtualSize - SECTOR_SIZE, length: SECTOR_SIZE },
  ];
}
