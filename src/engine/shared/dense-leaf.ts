/**
 * A leaf of the chain map whose blocks are mapped one by one: a bit for each of its 1,024 blocks,
 * and for each that is mapped how far its address is past the lowest one. Two bytes where all are
 * within 256 MiB of delta data, else three, within 64 GiB: a word a block would take 4 KiB.
 *
 * In a chunk (chunk-pool.ts): word 0 holds the number of blocks that are mapped, DENSE, WIDE (three
 * bytes) and the chunk's class; word 1 the lowest address; then, for each 128 blocks, how many are
 * mapped before them (16 bits each); the bits; the lower 16 bits of each distance; if WIDE, the
 * upper 8 bits of each. The greatest distance there is stands for a block that reads as zero.
 *
 * INVARIANT: it never changes. What maps blocks makes a new one.
 */
import { CHUNK_WORDS } from './chunk-pool.js';
import {
  type Chunk,
  classFor,
  classOf,
  DENSE,
  headOf,
  LEAF_BLOCKS,
  type LeafMemory,
  type Run,
  type Runs,
  ZERO_ADDRESS,
} from './leaf-shape.js';

const WIDE = 0x4000;
const COUNT_MASK = 0x3fff;
const BASE = 1;
const BEFORE = 2;
const GROUP_BITS = 7;
const BITS = 6;
const BIT_WORDS = LEAF_BLOCKS / 32;
const LOWS = BITS + BIT_WORDS;

const NARROW_ZERO = 0xffff;
const WIDE_ZERO = 0xff_ffff;

/** Blocks that fit into a chunk of each class: four of three bytes take three words. */
const NARROW_ROOM = CHUNK_WORDS.map((words) => Math.max(0, (words - LOWS) * 2));
const WIDE_ROOM = CHUNK_WORDS.map((words) => Math.max(0, Math.floor((words - LOWS) / 3) * 4));

/** What is read along with a leaf to find an entry in it. */
interface Opened {
  readonly head: number;
  readonly base: number;
  /** Index (in halves) of the first lower part, index (in words) of the upper parts. */
  readonly lows: number;
  readonly highs: number;
}

function open({ words }: LeafMemory, at: number): Opened {
  const head = words[at]!;
  const lows = (at + LOWS) * 2;
  return { head, base: words[at + BASE]!, lows, highs: highsOf(at, classOf(head)) };
}

function highsOf(at: number, size: number): number {
  return at + LOWS + WIDE_ROOM[size]! / 2;
}

function addressAt(memory: LeafMemory, { head, base, lows, highs }: Opened, index: number): number {
  const low = memory.halves[lows + index]!;
  if ((head & WIDE) === 0) return low === NARROW_ZERO ? ZERO_ADDRESS : base + low;
  const high = (memory.words[highs + (index >>> 2)]! >>> ((index & 3) * 8)) & 0xff;
  const distance = high * 0x1_0000 + low;
  return distance === WIDE_ZERO ? ZERO_ADDRESS : base + distance;
}

/** How many bits are set. */
function population(word: number): number {
  let count = word - ((word >>> 1) & 0x5555_5555);
  count = (count & 0x3333_3333) + ((count >>> 2) & 0x3333_3333);
  return Math.imul((count + (count >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** How many blocks before `block` are mapped: the index of its entry. */
function rank({ words, halves }: LeafMemory, at: number, block: number): number {
  if (block === LEAF_BLOCKS) return words[at]! & COUNT_MASK;
  const word = block >>> 5;
  const group = block >>> GROUP_BITS;
  let count = halves[(at + BEFORE) * 2 + group]!;
  for (let i = group << (GROUP_BITS - 5); i < word; i += 1) {
    count += population(words[at + BITS + i]!);
  }
  return count + population(words[at + BITS + word]! & ((1 << (block & 31)) - 1));
}

function isMapped(words: Uint32Array, at: number, block: number): boolean {
  return ((words[at + BITS + (block >>> 5)]! >>> (block & 31)) & 1) === 1;
}

/** The first block from `block` on that is mapped; `end` if none is before it. */
function nextMapped(words: Uint32Array, at: number, block: number, end: number): number {
  for (let next = block; next < end; ) {
    const rest = words[at + BITS + (next >>> 5)]! >>> (next & 31);
    if (rest !== 0) return Math.min(end, next + 31 - Math.clz32(rest & -rest));
    next = (next | 31) + 1;
  }
  return end;
}

/** Finds things in dense leaves. Results are fields, so that nothing is allocated. */
export class DenseReader {
  /** Of the run found: 0 unmapped, 1 zero, else the address of its first block. */
  address = 0;

  /** See `PackedReader.find`. */
  find(memory: LeafMemory, at: number, block: number, limit: number): number {
    const { words } = memory;
    if (!isMapped(words, at, block)) {
      this.address = 0;
      return nextMapped(words, at, block, block + limit) - block;
    }
    const opened = open(memory, at);
    const index = rank(memory, at, block);
    const address = addressAt(memory, opened, index);
    const step = address === ZERO_ADDRESS ? 0 : 1;
    let count = 1;
    while (
      count < limit &&
      isMapped(words, at, block + count) &&
      addressAt(memory, opened, index + count) === address + count * step
    ) {
      count += 1;
    }
    this.address = address;
    return count;
  }
}

/** How many blocks of [from, end) hold data. */
export function denseData(memory: LeafMemory, at: number, from: number, end: number): number {
  const opened = open(memory, at);
  const last = rank(memory, at, end);
  let data = 0;
  for (let index = rank(memory, at, from); index < last; index += 1) {
    if (addressAt(memory, opened, index) !== ZERO_ADDRESS) data += 1;
  }
  return data;
}

/**
 * The class of the chunk that the leaf fits into with some blocks mapped anew; -1 for none, or
 * where they are too far from the others.
 */
export function denseClassWith(memory: LeafMemory, at: number, run: Run): number {
  const { block, count, address } = run;
  const { head, base } = open(memory, at);
  const isWide = (head & WIDE) !== 0;
  if (address !== ZERO_ADDRESS) {
    const end = address + count - base;
    if (address < base || end > (isWide ? WIDE_ZERO : NARROW_ZERO)) return -1;
  }
  const replaced = rank(memory, at, block + count) - rank(memory, at, block);
  const entries = (head & COUNT_MASK) - replaced + count;
  return classFor(isWide ? WIDE_ROOM : NARROW_ROOM, entries);
}

/** Copies a leaf into a chunk of the class above, with the blocks mapped anew. */
export function copyDenseWith(memory: LeafMemory, from: number, target: Chunk, run: Run): void {
  const { words, halves } = memory;
  const { at, size } = target;
  const old = open(memory, from);
  const isWide = (old.head & WIDE) !== 0;
  const entries = old.head & COUNT_MASK;
  const first = rank(memory, from, run.block);
  const last = rank(memory, from, run.block + run.count);
  const shift = run.count - (last - first);

  words.copyWithin(at + BASE, from + BASE, from + LOWS);
  for (let block = run.block; block < run.block + run.count; block += 1) setBit(words, at, block);
  countGroups(memory, at);
  const lows = (at + LOWS) * 2;
  halves.copyWithin(lows, old.lows, old.lows + first);
  halves.copyWithin(lows + last + shift, old.lows + last, old.lows + entries);
  const highs = highsOf(at, size);
  if (isWide) {
    const same = shift === 0 ? entries : first;
    words.copyWithin(highs, old.highs, old.highs + Math.ceil(same / 4));
    for (let index = last; shift > 0 && index < entries; index += 1) {
      putHigh(words, highs, index + shift, words[old.highs + (index >>> 2)]! >>> ((index & 3) * 8));
    }
  }
  for (let i = 0; i < run.count; i += 1) {
    const distance = distanceOf(run.address, i, old.base, isWide);
    halves[lows + first + i] = distance;
    if (isWide) putHigh(words, highs, first + i, distance >>> 16);
  }
  words[at] = headOf(size, (entries + shift) | DENSE | (old.head & WIDE));
}

function distanceOf(address: number, past: number, base: number, isWide: boolean): number {
  if (address === ZERO_ADDRESS) return isWide ? WIDE_ZERO : NARROW_ZERO;
  return address + past - base;
}

function setBit(words: Uint32Array, at: number, block: number): void {
  const word = at + BITS + (block >>> 5);
  words[word] = words[word]! | (1 << (block & 31));
}

function putHigh(words: Uint32Array, highs: number, index: number, high: number): void {
  const word = highs + (index >>> 2);
  const bits = (index & 3) * 8;
  words[word] = (words[word]! & ~(0xff << bits)) | ((high & 0xff) << bits);
}

/** Notes how many blocks are mapped before each group, from the bits. */
function countGroups({ words, halves }: LeafMemory, at: number): void {
  let count = 0;
  for (let word = 0; word < BIT_WORDS; word += 1) {
    if (word % 4 === 0) halves[(at + BEFORE) * 2 + word / 4] = count;
    count += population(words[at + BITS + word]!);
  }
}

/** Of what is to become a dense leaf. */
export interface Density {
  /** Blocks that are mapped. */
  readonly blocks: number;
  /** Of their addresses, the zero address left out; 0 where there is no other. */
  readonly lowest: number;
  readonly highest: number;
}

/** The class of the smallest chunk that it fits into, -1 for none. */
export function denseClass({ blocks, lowest, highest }: Density): number {
  const distance = highest - lowest;
  if (distance < NARROW_ZERO) return classFor(NARROW_ROOM, blocks);
  return distance < WIDE_ZERO ? classFor(WIDE_ROOM, blocks) : -1;
}

/** Writes it into a chunk of that class that no reader knows yet. */
export function writeDense(
  memory: LeafMemory,
  { at, size }: Chunk,
  { blocks, lowest, highest }: Density,
  runs: Runs,
): void {
  const { words, halves } = memory;
  const isWide = highest - lowest >= NARROW_ZERO;
  const lows = (at + LOWS) * 2;
  const highs = highsOf(at, size);
  words.fill(0, at + BITS, at + LOWS);
  words[at + BASE] = lowest;
  let index = 0;
  for (let run = 0; run < runs.count; run += 1) {
    for (let i = 0; i < runs.lengths[run]!; i += 1) {
      const distance = distanceOf(runs.addresses[run]!, i, lowest, isWide);
      setBit(words, at, runs.blocks[run]! + i);
      halves[lows + index] = distance;
      if (isWide) putHigh(words, highs, index, distance >>> 16);
      index += 1;
    }
  }
  countGroups(memory, at);
  words[at] = headOf(size, blocks | DENSE | (isWide ? WIDE : 0));
}

/** See `eachPackedRun`. */
export function eachDenseRun(
  memory: LeafMemory,
  at: number,
  { from, end }: { readonly from: number; readonly end: number },
  tell: (block: number, count: number, address: number) => void,
): void {
  const opened = open(memory, at);
  let index = rank(memory, at, from);
  for (
    let block = nextMapped(memory.words, at, from, end);
    block < end;
    block = nextMapped(memory.words, at, block + 1, end)
  ) {
    tell(block, 1, addressAt(memory, opened, index));
    index += 1;
  }
}
