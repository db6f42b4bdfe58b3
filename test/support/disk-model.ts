/** A disk as a test means it: what each unit is, and bytes that tell where they belong. */
import { SECTOR_SIZE } from '../../src/common/units.js';
import type { ExtentState } from '../../src/engine/disk-image.js';

/** One image of a chain: state and content of every unit (block, grain, cluster) of its own. */
export interface DiskModel {
  /** Bytes. */
  readonly size: number;
  readonly unitSize: number;
  /** One state a unit; the last unit may be cut by the disk's end. */
  readonly states: readonly ExtentState[];
  /** What this image says, zeroes where it holds no data. */
  readonly content: Buffer;
}

/**
 * A model whose data sectors are stamped: each begins with its sector number and the salt, and goes
 * on with bytes that depend on both, so that a sector read from anywhere else shows.
 * @param pattern one letter a unit: `d`ata, `z`ero, `u`nallocated; repeated as often as the size
 * asks for.
 */
export function stampedModel(options: {
  size: number;
  unitSize: number;
  pattern: string;
  salt: number;
}): DiskModel {
  const { size, unitSize, pattern, salt } = options;
  const names: Record<string, ExtentState> = { d: 'data', z: 'zero', u: 'unallocated' };
  const count = Math.ceil(size / unitSize);
  const states = Array.from(
    { length: count },
    (_, unit) => names[pattern[unit % pattern.length]!]!,
  );
  const content = Buffer.alloc(size);
  for (const [unit, state] of states.entries()) {
    const end = Math.min(size, (unit + 1) * unitSize);
    if (state !== 'data') continue;
    for (let at = unit * unitSize; at < end; at += SECTOR_SIZE) {
      stamp(content.subarray(at, Math.min(end, at + SECTOR_SIZE)), at / SECTOR_SIZE, salt);
    }
  }
  return { size, unitSize, states, content };
}

/**
 * What a chain of models, top first, shows: an absent unit is the one below, beyond a parent's end
 * zeroes.
 */
export function mergedContent(models: readonly DiskModel[]): Buffer {
  const top = models[0]!;
  const out = Buffer.alloc(top.size);
  for (let at = 0; at < top.size; at += SECTOR_SIZE) {
    let end = Math.min(at + SECTOR_SIZE, top.size);
    for (const model of models) {
      end = Math.min(end, model.size);
      if (at >= end) break;
      if (stateAt(model, at) === 'unallocated') continue;
      model.content.copy(out, at, at, end);
      break;
    }
  }
  return out;
}

export function stateAt(model: DiskModel, offset: number): ExtentState {
  return model.states[Math.floor(offset / model.unitSize)]!;
}

function stamp(target: Buffer, sector: number, salt: number): void {
  for (let index = 0; index < target.length; index += 1) {
    target[index] = (index * 7 + sector * 31 + salt * 101 + (sector >>> 8)) & 0xff;
  }
  if (target.length >= 12) {
    target.writeDoubleLE(sector, 0);
    target.writeUInt32LE(salt, 8);
  }
}
