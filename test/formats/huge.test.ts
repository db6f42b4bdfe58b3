/** Images of the largest disks: opened at once, read in bounded memory, refused above the limit. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB, TiB } from '../../src/common/units.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { describeBase, ImageBase, openBase } from '../../src/formats/base.js';
import { openImage } from '../../src/formats/registry.js';
import { stampedModel } from '../support/disk-model.js';
import { createRandom } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildVdi } from '../support/vdi-writer.js';
import { buildSparse, descriptorText } from '../support/vmdk-writer.js';

const MEMORY_LIMIT = 128 * MiB;

/** Writes parts into a file that is a hole elsewhere. */
function writeParts(path: string, size: number, parts: readonly (readonly [number, Buffer])[]) {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  for (const [offset, bytes] of parts) writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

function hugeVdi(path: string, size: number): Buffer {
  const block = stampedModel({ size: MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const blockCount = size / MiB;
  const mapOffset = 512;
  const dataOffset = mapOffset + blockCount * 4;
  const header = buildVdi(block).subarray(0, 512);
  header.writeBigUInt64LE(BigInt(size), 368);
  header.writeUInt32LE(blockCount, 384);
  header.writeUInt32LE(mapOffset, 340);
  header.writeUInt32LE(dataOffset, 344);
  // The map is a hole: entry 0, so every block shows the one that is there.
  writeParts(path, dataOffset + MiB, [
    [0, header],
    [dataOffset, block.content],
  ]);
  return block.content;
}

t.test('a VDI of 64 TiB, its map of 256 MiB read as it is needed', async (t) => {
  const path = join(tempFolder(t), 'huge.vdi');
  const block = hugeVdi(path, 64 * TiB);
  const memory = process.memoryUsage().rss;
  const base = new ImageBase([openImage(path)]);
  t.teardown(() => base.close());
  const random = createRandom(1);
  const bytes = Buffer.alloc(4096);
  const extent: Extent = { state: 'data', length: 0 };
  const wrong: number[] = [];
  for (let round = 0; round < 3000; round += 1) {
    const inBlock = random.below(MiB / 512 - 8) * 512;
    const at = random.below(64 * MiB) * MiB + inBlock;
    base.readAt(bytes, 0, at, bytes.length);
    base.extentAt(at, 4096, extent);
    const right = bytes.equals(block.subarray(inBlock, inBlock + 4096));
    if (!right || extent.state !== 'data' || extent.length !== 4096) wrong.push(at);
  }
  t.strictSame(wrong, []);
  t.ok(process.memoryUsage().rss - memory < MEMORY_LIMIT, 'memory stays bounded');
});

t.test('one block more is refused', async (t) => {
  const path = join(tempFolder(t), 'huge.vdi');
  hugeVdi(path, 64 * TiB + MiB);
  t.throws(() => openImage(path), { code: 'damaged', message: /not from 1 byte to 64 TiB/ });
});

t.test('an empty VMDK of 64 TiB with one grain at its end', async (t) => {
  const path = join(tempFolder(t), 'huge.vmdk');
  const size = 64 * TiB;
  const sectors = size / 512;
  const last = stampedModel({ size: 65536, unitSize: 65536, pattern: 'd', salt: 1 });
  const descriptor = descriptorText({ createType: 'x', extents: [`RW ${sectors} SPARSE "x"`] });
  const head = buildSparse(last, { descriptor }).subarray(0, 21 * 512);
  const directoryOffset = 64 * 512;
  const tableCount = size / 65536 / 512;
  const table = directoryOffset + tableCount * 4;
  head.writeBigUInt64LE(BigInt(sectors), 12);
  head.writeBigUInt64LE(BigInt(directoryOffset / 512), 56);
  const word = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  writeParts(path, table + 2048 + 65536, [
    [0, head],
    [directoryOffset + (tableCount - 1) * 4, word(table / 512)],
    [table + 511 * 4, word((table + 2048) / 512)],
    [table + 2048, last.content],
  ]);
  const memory = process.memoryUsage().rss;
  const { spec } = describeBase(path);
  t.equal(spec.virtualSize, size);
  t.equal(spec.allocatedSize, 65536);
  const base = openBase(spec);
  t.teardown(() => base.close());
  const bytes = Buffer.alloc(131072, 1);
  base.readAt(bytes, 0, size - bytes.length, bytes.length);
  t.ok(bytes.subarray(0, 65536).every((byte) => byte === 0));
  t.ok(bytes.subarray(65536).equals(last.content));
  t.ok(process.memoryUsage().rss - memory < MEMORY_LIMIT, 'memory stays bounded');
});
