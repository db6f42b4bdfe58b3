/**
 * Opens images in a process of their own, looks at all of each and reads much of it, and prints a
 * line for each: `{"file", "outcome", "failures", "peak": most resident memory so far, "rest":
 * before the first}`, in bytes.
 *
 *     node use-image.mjs EXTENTS READS FILE...
 */
import { readFileSync } from 'node:fs';
import { DiskError } from '../../dist/modules/common/errors.js';
import { ImageBase } from '../../dist/modules/formats/base.js';
import { openChain } from '../../dist/modules/formats/open-chain.js';

const [extents, reads, ...files] = process.argv.slice(2);
const READ_BYTES = 1 << 20;
let failures = 0;

/** Bytes of resident memory at the most so far. */
function peak() {
  return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
}

function attempt(work) {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    failures += 1;
    return undefined;
  }
}

function use(base, images) {
  for (const image of images) attempt(() => image.info());
  const extent = { state: 'data', length: 0 };
  for (let at = 0, count = 0; at < base.virtualSize && count < Number(extents); count += 1) {
    extent.length = 0;
    attempt(() => base.extentAt(at, base.virtualSize - at, extent));
    at += Math.max(extent.length, 65_536);
  }
  const buffer = Buffer.alloc(READ_BYTES);
  // Half from the start on, half spread over the whole disk.
  const step = Math.floor(base.virtualSize / Number(reads));
  for (let read = 0; read < Number(reads); read += 1) {
    const at = read % 2 === 0 ? (read / 2) * READ_BYTES : read * step;
    const length = Math.min(READ_BYTES, base.virtualSize - at);
    if (length > 0) attempt(() => base.readAt(buffer, 0, at, length));
  }
}

function outcomeOf(path) {
  try {
    const images = openChain(path);
    const base = new ImageBase(images);
    try {
      use(base, images);
    } finally {
      base.close();
    }
    return 'read';
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    return error.code;
  }
}

const rest = peak();
for (const file of files) {
  failures = 0;
  const outcome = outcomeOf(file);
  console.log(JSON.stringify({ file, outcome, failures, peak: peak(), rest }));
}
