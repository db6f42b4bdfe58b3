/** VHD of sizes that only sparse files can have in a test. */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GiB, KiB, MiB, TiB } from '../../src/common/units.js';
import type { DiskImage, Extent } from '../../src/engine/disk-image.js';
import { inOneBudget } from '../../src/formats/memory-budget.js';
import { openVhd } from '../../src/formats/vhd/vhd-image.js';
import { DYNAMIC_HEADER, FOOTER } from '../../src/formats/vhd/vhd-layout.js';
import { readChain } from '../support/chain-reader.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { HEADER_OFFSET, sealVhd, writeVhd } from '../support/vhd-writer.js';

t.test('blocks past 4 GiB and past 2^40 of the file', async (t) => {
  const folder = tempFolder(t);
  for (const sector of [(5 * GiB) / 512, (3 * TiB) / 512, (2 * TiB) / 512 - 7777]) {
    const model = stampedModel({ size: 6 * MiB, unitSize: 512, pattern: 'duudd', salt: 1 });
    const path = join(folder, `${sector}.vhd`);
    // Sector numbers have 32 bits: the farthest block lies just below 2 TiB.
    const first = Math.min(sector, 2 ** 32 - 30_000);
    writeVhd(path, { model, place: (nth) => first + nth * 4097 });
    const image = openVhd(path);
    t.ok(readChain([image], 0, model.size).equals(model.content), `from sector ${first} on`);
    image.close();
  }
});

/** Moves the table of an empty image far out and gives it many entries. */
function enlarge(
  path: string,
  shape: { size: number; blockSize: number; tableOffset: number; fileSize: number },
): void {
  const { size, blockSize, tableOffset, fileSize } = shape;
  const model = stampedModel({ size: 512, unitSize: 512, pattern: 'u', salt: 1 });
  writeVhd(path, { model, blockSize });
  const fd = openSync(path, 'r+');
  const footer = Buffer.alloc(FOOTER.size);
  readSync(fd, footer, 0, footer.length, 0);
  footer.writeBigUInt64BE(BigInt(size), FOOTER.offsetOf.currentSize);
  sealVhd(footer, FOOTER.offsetOf.checksum);
  const header = Buffer.alloc(DYNAMIC_HEADER.size);
  readSync(fd, header, 0, header.length, HEADER_OFFSET);
  header.writeBigUInt64BE(BigInt(tableOffset), DYNAMIC_HEADER.offsetOf.tableOffset);
  header.writeUInt32BE(Math.ceil(size / blockSize), DYNAMIC_HEADER.offsetOf.maxTableEntries);
  sealVhd(header, DYNAMIC_HEADER.offsetOf.checksum);
  ftruncateSync(fd, fileSize);
  writeSync(fd, footer, 0, footer.length, 0);
  writeSync(fd, header, 0, header.length, HEADER_OFFSET);
  writeSync(fd, footer, 0, footer.length, fileSize - 512);
  closeSync(fd);
}

t.test('a table of 2 GiB past 2^32 of the file, for 2 TiB in blocks of 4 KiB', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'table.vhd');
  const tableOffset = 5 * GiB;
  enlarge(path, { size: 2 * TiB, blockSize: 4 * KiB, tableOffset, fileSize: 8 * GiB });
  const fd = openSync(path, 'r+');
  // Holes read as zeroes, which is the copy of the footer: such entries are damage.
  writeSync(fd, Buffer.alloc(MiB, 0xff), 0, MiB, tableOffset + 2 * GiB - MiB);
  const entry = Buffer.alloc(4);
  entry.writeUInt32BE((7.5 * GiB) / 512);
  writeSync(fd, entry, 0, 4, tableOffset + 2 * GiB - 4);
  writeSync(fd, Buffer.alloc(512, 0xff), 0, 512, 7.5 * GiB);
  writeSync(fd, Buffer.from('the last block'), 0, 14, 7.5 * GiB + 512);
  closeSync(fd);
  const before = process.memoryUsage().arrayBuffers;
  const image = openVhd(path);
  t.equal(image.virtualSize, 2 * TiB);
  const extent: Extent = { state: 'data', length: 0 };
  const start = 2 * TiB - 4 * KiB;
  image.extentAt(start, 4 * KiB, extent);
  t.strictSame(extent, { state: 'data', length: 4 * KiB });
  t.equal(readChain([image], start, 14).toString(), 'the last block');
  image.extentAt(start - MiB, MiB, extent);
  t.strictSame(extent, { state: 'unallocated', length: MiB });
  for (let at = 0; at < 64 * GiB; at += extent.length) image.extentAt(at, 64 * GiB - at, extent);
  t.throws(() => image.readAt(Buffer.alloc(512), 0, 0, 512), { code: 'damaged', errno: 'EIO' });
  const grown = process.memoryUsage().arrayBuffers - before;
  t.ok(grown < 64 * MiB, `${grown} bytes for a table of 2 GiB`);
  image.close();
});

t.test('many images of 2040 GiB, which a chain has room for', async (t) => {
  const path = join(tempFolder(t), 'large.vhd');
  const shape = { size: 2040 * GiB, blockSize: 256 * MiB, tableOffset: MiB, fileSize: 2 * MiB };
  enlarge(path, shape);
  const images: DiskImage[] = [];
  inOneBudget(() => {
    for (let count = 0; count < 100; count += 1) images.push(openVhd(path));
  });
  t.equal(images.length, 100);
  for (const image of images) image.close();
});

t.test('a fixed disk of 4 TiB', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'fixed.vhd');
  const model = stampedModel({ size: 512, unitSize: 512, pattern: 'd', salt: 1 });
  writeVhd(path, { model, type: 'fixed' });
  const fd = openSync(path, 'r+');
  const footer = Buffer.alloc(FOOTER.size);
  readSync(fd, footer, 0, 512, 512);
  footer.writeBigUInt64BE(BigInt(4 * TiB), FOOTER.offsetOf.currentSize);
  sealVhd(footer, FOOTER.offsetOf.checksum);
  ftruncateSync(fd, 0);
  writeSync(fd, footer, 0, 512, 4 * TiB);
  writeSync(fd, Buffer.from('far out'), 0, 7, 3 * TiB);
  closeSync(fd);
  const image = openVhd(path);
  t.equal(image.virtualSize, 4 * TiB);
  t.equal(readChain([image], 3 * TiB, 7).toString(), 'far out');
  t.ok(image.info().allocatedSize <= 64 * KiB || image.info().allocatedSize === 4 * TiB, 'holes');
  image.close();
});
