/** Finds the slots of a VDI that its map gives to more than one block. */
import type { ReadableFile } from '../../storage/host-file.js';
import { currentBudget } from '../memory-budget.js';
import { VDI_ENTRY_SIZE, type VdiHeader } from './vdi-layout.js';

/** Maps up to this size (1 TiB in blocks of 1 MiB) are searched. */
const MAX_SEARCHED_ENTRIES = 1_048_576;
const PIECE_ENTRIES = 16_384;

/**
 * The slots, ascending: of the blocks that share one at most one can be right, and nothing tells
 * which.
 * @param count entries that the disk needs; the caller has checked that they lie in the file.
 */
export function findSharedSlots(file: ReadableFile, header: VdiHeader, count: number): Uint32Array {
  const { blockCount, blockMapOffset } = header;
  if (count > MAX_SEARCHED_ENTRIES || blockCount > MAX_SEARCHED_ENTRIES) return new Uint32Array(0);
  const uses = new Uint8Array(blockCount);
  const shared: number[] = [];
  const bytes = Buffer.alloc(Math.min(PIECE_ENTRIES, count) * VDI_ENTRY_SIZE);
  for (let first = 0; first < count; first += PIECE_ENTRIES) {
    const length = Math.min(PIECE_ENTRIES, count - first) * VDI_ENTRY_SIZE;
    file.readExact(bytes, 0, length, blockMapOffset + first * VDI_ENTRY_SIZE);
    for (let at = 0; at < length; at += VDI_ENTRY_SIZE) {
      const slot = bytes.readUInt32LE(at);
      // What is no slot, free and zero blocks among it, leads nowhere else.
      if (slot >= blockCount || uses[slot] === 2) continue;
      uses[slot]! += 1;
      if (uses[slot] === 2) shared.push(slot);
    }
  }
  currentBudget().take(shared.length * Uint32Array.BYTES_PER_ELEMENT, file.path);
  return Uint32Array.from(shared).sort();
}
