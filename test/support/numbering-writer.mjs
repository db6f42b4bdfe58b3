/**
 * Writes 1, 2, 3, ... one after the other, each into the sector that `sectorOf` gives it, until its
 * standard input ends. Number n goes to file n modulo the number of files. Each write is
 * acknowledged before the next begins, so any instant's state of the files is a prefix of the
 * sequence.
 *
 * node numbering-writer.mjs SECTORS direct|buffered FILE...
 * Prints how long the slowest write took and the last number written when it ends; fails when a
 * write fails.
 */
import { constants, openSync, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { sectorOf } from './numbered-sectors.mjs';

const SECTOR_BYTES = 512;
/** So many writes between two looks at the standard input. */
const BATCH = 16;

const [sectorsText, mode, ...paths] = process.argv.slice(2);
const sectors = Number(sectorsText);
const flags = constants.O_RDWR | (mode === 'direct' ? constants.O_DIRECT : 0);
const files = paths.map((path) => openSync(path, flags));
// O_DIRECT wants aligned memory, and a WebAssembly memory begins on a page.
const memory = new WebAssembly.Memory({ initial: 1 });
const block = Buffer.from(memory.buffer, 0, SECTOR_BYTES);

let stopping = false;
process.stdin.on('end', () => {
  stopping = true;
});
process.stdin.resume();

let number = 0;
let slowest = 0;
while (!stopping) {
  for (let done = 0; done < BATCH; done += 1) {
    number += 1;
    for (let at = 0; at < SECTOR_BYTES; at += 4) block.writeUInt32LE(number, at);
    const position = sectorOf(number, sectors) * SECTOR_BYTES;
    const begin = performance.now();
    const written = writeSync(files[number % files.length], block, 0, SECTOR_BYTES, position);
    slowest = Math.max(slowest, performance.now() - begin);
    if (written !== SECTOR_BYTES) throw new Error(`short write of number ${number}`);
  }
  // Said once, so that whoever waits knows that writing is under way.
  if (number === BATCH) process.stdout.write('working\n');
  await setImmediate();
}
process.stdout.write(`slowest ${Math.round(slowest)} ms\n${number}\n`);
