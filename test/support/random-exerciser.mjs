/**
 * Random operations on one file until standard input ends: writes and reads of any alignment, the
 * same past the page cache, punched holes, zeroed ranges, flushes. Every byte is compared with a
 * model in memory: at each read, and all of them at the end.
 *
 * node random-exerciser.mjs FILE SIZE SEED
 * Prints how long the slowest operation took and how many there were; fails at the first wrong
 * byte.
 */
import { constants, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
} from '../../dist/modules/storage/libc.js';

const SECTOR = 512;
const MOST = 128 * 1024;
/** So many operations between two looks at the standard input. */
const BATCH = 16;

const [path, sizeText, seedText] = process.argv.slice(2);
const size = Number(sizeText);
const cached = openSync(path, constants.O_RDWR);
const direct = openSync(path, constants.O_RDWR | constants.O_DIRECT);
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
  const most = below(4) === 0 ? MOST : 16 * 1024;
  const length = (1 + below(most / unit)) * unit;
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

function clear(mode, unit) {
  const { offset, length } = range(unit);
  fallocate(cached, FALLOC_FL_KEEP_SIZE | mode, offset, length);
  model.fill(0, offset, offset + length);
}

function step() {
  const dice = below(100);
  if (dice < 25) write(cached, 1);
  else if (dice < 45) write(direct, SECTOR);
  else if (dice < 65) read(cached, 1, 'read');
  else if (dice < 80) read(direct, SECTOR, 'direct read');
  else if (dice < 90) clear(FALLOC_FL_PUNCH_HOLE, below(2) === 0 ? 1 : SECTOR);
  else if (dice < 95) clear(FALLOC_FL_ZERO_RANGE, below(2) === 0 ? 1 : SECTOR);
  else fsyncSync(cached);
}

let stopping = false;
process.stdin.on('end', () => {
  stopping = true;
});
process.stdin.resume();

let operations = 0;
let slowest = 0;
while (!stopping) {
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
