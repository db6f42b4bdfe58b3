/**
 * Random operations on one file, as fsx does them, OPERATIONS or until standard input ends: writes
 * and reads of any alignment, the same through mappings and past the page cache, copies, punched
 * holes, zeroed ranges, flushes, dropped caches, closing and opening. Every byte is compared with a
 * model in memory: at each read, and all of them at the end.
 *
 * node random-exerciser.mjs FILE SIZE SEED [OPERATIONS]
 * FILE has SIZE zero bytes, or more of which the first are used; a block device, too. Prints how
 * long the slowest operation took and how many there were; fails at the first wrong byte.
 */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
} from '../../dist/modules/storage/libc.js';
import { copyWithin, dropCached } from './cache-calls.mjs';
import { readMapped, writeMapped } from './memory-map.mjs';

const SECTOR = 512;
const MOST = 128 * 1024;
/** So many operations between two looks at the standard input. */
const BATCH = 16;

const [path, sizeText, seedText, mostText] = process.argv.slice(2);
const size = Number(sizeText);
const most = mostText === undefined ? Number.POSITIVE_INFINITY : Number(mostText);
let cached = openSync(path, constants.O_RDWR);
const direct = openSync(path, constants.O_RDWR | constants.O_DIRECT);
const isDevice = fstatSync(cached).isBlockDevice();
// O_DIRECT wants aligned memory, and a WebAssembly memory begins on a page.
const memory = new WebAssembly.Memory({ initial: MOST / 65_536 });
const buffer = Buffer.from(memory.buffer, 0, MOST);
const model = Buffer.alloc(size);
const found = Buffer.alloc(MOST);

let state = Number(seedText) >>> 0;
/** Xorshift32 (Marsaglia): as random as an exerciser needs. */
function below(limit) {
  state ^= state << 13;
  state >>>= 0;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % limit;
}
if (state === 0) state = 1;

function range(unit) {
  const offset = below(size / unit) * unit;
  const longest = below(4) === 0 ? MOST : 16 * 1024;
  const length = (1 + below(longest / unit)) * unit;
  return { offset, length: Math.min(length, size - offset) };
}

function compare(bytes, offset, length, how) {
  const wanted = model.subarray(offset, offset + length);
  if (bytes.subarray(0, length).equals(wanted)) return;
  const at = wanted.findIndex((byte, index) => byte !== bytes[index]);
  const what = `${how}: byte ${offset + at} is ${bytes[at]}, should be ${wanted[at]}`;
  throw new Error(`operation ${operations}: ${what}`);
}

function whole(done, length, how) {
  if (done !== length) throw new Error(`operation ${operations}: ${how}: ${done} of ${length}`);
}

/** Words, not bytes, for speed: each operation has its own. */
function fill({ offset, length }) {
  const word = below(0xffffffff);
  for (let at = 0; at + 4 <= length; at += 4) buffer.writeUInt32LE((word + at) >>> 0, at);
  for (let at = length - (length % 4); at < length; at += 1) buffer[at] = word & 0xff;
  buffer.copy(model, offset, 0, length);
}

function write(fd, unit) {
  const place = range(unit);
  fill(place);
  whole(writeSync(fd, buffer, 0, place.length, place.offset), place.length, 'write');
}

function read(fd, unit, how) {
  const { offset, length } = range(unit);
  const into = fd === direct ? buffer : found;
  whole(readSync(fd, into, 0, length, offset), length, how);
  compare(into, offset, length, how);
}

function writeByMapping() {
  const place = range(1);
  fill(place);
  writeMapped(cached, place.offset, buffer, place.length, below(4) === 0);
}

function readByMapping() {
  const { offset, length } = range(1);
  readMapped(cached, offset, found, length);
  compare(found, offset, length, 'mapped read');
}

/** Block devices clear whole sectors only. */
function clear(mode) {
  const { offset, length } = range(isDevice || below(2) === 0 ? SECTOR : 1);
  fallocate(cached, FALLOC_FL_KEEP_SIZE | mode, offset, length);
  model.fill(0, offset, offset + length);
}

function copy() {
  const { offset, length } = range(1);
  const to = below(size - length + 1);
  if (isDevice || (to < offset + length && offset < to + length)) return;
  copyWithin(cached, offset, to, length);
  model.copyWithin(to, offset, offset + length);
}

function reopen() {
  closeSync(cached);
  cached = openSync(path, constants.O_RDWR);
}

/** Each with its share of a hundred. */
const STEPS = [
  [20, () => write(cached, 1)],
  [14, () => write(direct, SECTOR)],
  [10, writeByMapping],
  [16, () => read(cached, 1, 'read')],
  [12, () => read(direct, SECTOR, 'direct read')],
  [8, readByMapping],
  [8, () => clear(FALLOC_FL_PUNCH_HOLE)],
  [4, () => clear(FALLOC_FL_ZERO_RANGE)],
  [3, copy],
  [2, () => fsyncSync(cached)],
  [1, () => fdatasyncSync(direct)],
  [1, () => dropCached(cached)],
  [1, reopen],
];

function step() {
  let dice = below(100);
  for (const [share, run] of STEPS) {
    if (dice < share) return run();
    dice -= share;
  }
  throw new Error('the shares are less than a hundred');
}

let stopping = false;
if (mostText === undefined) {
  process.stdin.on('end', () => {
    stopping = true;
  });
  process.stdin.resume();
}

let operations = 0;
let slowest = 0;
while (!stopping && operations < most) {
  for (let done = 0; done < BATCH; done += 1) {
    const begin = performance.now();
    step();
    slowest = Math.max(slowest, performance.now() - begin);
    operations += 1;
  }
  // Said once, so that whoever waits knows that work is under way.
  if (operations === BATCH) process.stdout.write('working\n');
  await setImmediate();
}
for (let offset = 0; offset < size; offset += MOST) {
  const length = Math.min(MOST, size - offset);
  whole(readSync(direct, buffer, 0, length, offset), length, 'last read');
  compare(buffer, offset, length, 'last read');
}
process.stdout.write(`slowest ${Math.round(slowest)} ms\n${operations}\n`);
