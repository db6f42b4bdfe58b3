/** qcow2 of sizes that only sparse files can have in a test: tables, offsets and disks far out. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GiB, KiB, MiB, TiB } from '../../src/common/units.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { openQcow2 } from '../../src/formats/qcow2/qcow2-image.js';
import { HEADER_V2, HEADER_V3, QCOW2_MAGIC } from '../../src/formats/qcow2/qcow2-layout.js';
import { readChain } from '../support/chain-reader.js';
import { stampedModel } from '../support/disk-model.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';

/** Writes a header with tables anywhere; everything else is holes until `put` fills it. */
function makeSparse(
  path: string,
  shape: { clusterBits: number; size: number; l1Offset: number; fileSize: number },
  put: (write: (offset: number, value: bigint) => void) => void,
): void {
  const { clusterBits, size, l1Offset, fileSize } = shape;
  const clusterSize = 2 ** clusterBits;
  const fd = openSync(path, 'w');
  ftruncateSync(fd, fileSize);
  const header = Buffer.concat([
    HEADER_V2.encode({
      magic: QCOW2_MAGIC,
      version: 3,
      clusterBits,
      size: BigInt(size),
      l1Size: Math.ceil(size / clusterSize / (clusterSize / 8)),
      l1TableOffset: BigInt(l1Offset),
      refcountTableOffset: BigInt(clusterSize),
      refcountTableClusters: 1,
    }),
    HEADER_V3.encode({ refcountOrder: 4, headerLength: 104 }),
  ]);
  writeSync(fd, header, 0, header.length, 0);
  put((offset, value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(value);
    writeSync(fd, bytes, 0, 8, offset);
  });
  closeSync(fd);
}

t.test('data past 4 GiB, 2^41 and tables past 2^33 of the file', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'far.qcow2');
  const table = 8 * GiB;
  const places = [5 * GiB, 3 * TiB, 3 * TiB + 64 * KiB];
  makeSparse(
    path,
    { clusterBits: 16, size: 64 * TiB, l1Offset: 2 ** 33 + 64 * KiB, fileSize: 4 * TiB },
    (write) => {
      const lastEntry = (64 * TiB) / (512 * MiB) - 1;
      write(2 ** 33 + 64 * KiB + lastEntry * 8, BigInt(table + 16 * MiB) | (1n << 63n));
      for (const [index, place] of places.entries()) {
        write(table + 16 * MiB + (8189 + index) * 8, BigInt(place) | (1n << 63n));
        write(place, BigInt(index + 1));
        write(place + 64 * KiB - 8, BigInt(index + 1));
      }
    },
  );
  const image = openQcow2(path);
  t.teardown(() => image.close());
  t.equal(image.virtualSize, 64 * TiB);
  t.equal(image.info().allocatedSize, 3 * 64 * KiB);
  const extent: Extent = { state: 'data', length: 0 };
  image.extentAt(0, image.virtualSize, extent);
  const start = 64 * TiB - 3 * 64 * KiB;
  t.strictSame(extent, { state: 'unallocated', length: start }, 'one run over 64 TiB');
  image.extentAt(start, 3 * 64 * KiB, extent);
  t.strictSame(extent, { state: 'data', length: 3 * 64 * KiB });
  const target = Buffer.alloc(3 * 64 * KiB);
  image.readAt(target, 0, start, target.length);
  const stamps = [0, 1, 2].flatMap((index) => [
    target.readBigUInt64BE(index * 64 * KiB),
    target.readBigUInt64BE((index + 1) * 64 * KiB - 8),
  ]);
  t.strictSame(stamps, [1n, 1n, 2n, 2n, 3n, 3n]);
});

t.test('compressed clusters past 4 GiB and past 2^40', async (t) => {
  const folder = tempFolder(t);
  const model = stampedModel({ size: MiB, unitSize: 4096, pattern: 'dud', salt: 2 });
  for (const packFrom of [5 * GiB + 77, TiB + 511]) {
    const path = join(folder, `${packFrom}.qcow2`);
    writeQcow2(path, { model, clusterBits: 12, compressed: () => true, packFrom });
    const image = openQcow2(path);
    t.teardown(() => image.close());
    const place = { file: path, length: 4096, compressed: true };
    t.strictSame(image.locate?.(0), place, 'no plain place');
    t.ok(readChain([image], 0, MiB).equals(model.content), `from ${packFrom} on`);
  }
});

t.test('a disk of 2^53 bytes less one cluster, as only a header can claim it', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'claim.qcow2');
  const size = 2 ** 53 - 2 * MiB;
  const shape = { clusterBits: 21, size, l1Offset: 4 * MiB, fileSize: 8 * MiB };
  makeSparse(path, shape, () => {});
  const image = openQcow2(path);
  t.teardown(() => image.close());
  const extent: Extent = { state: 'data', length: 0 };
  image.extentAt(0, size, extent);
  t.strictSame(extent, { state: 'unallocated', length: size });
  t.equal(image.info().allocatedSize, 0);
});

t.test('L1 tables of the largest size, all of it L2 tables', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'l1.qcow2');
  const entries = 4 * MiB;
  const shape = {
    clusterBits: 9,
    size: 128 * GiB,
    l1Offset: MiB,
    fileSize: 64 * MiB + entries * 512,
  };
  makeSparse(path, shape, () => {});
  const fd = openSync(path, 'r+');
  const table = Buffer.alloc(entries * 8);
  for (let index = 0; index < entries; index += 1) {
    const offset = 64 * MiB + index * 512;
    table.writeUInt32BE(Math.floor(offset / 2 ** 32) + 0x80000000, index * 8);
    table.writeUInt32BE(offset % 2 ** 32, index * 8 + 4);
  }
  writeSync(fd, table, 0, table.length, MiB);
  closeSync(fd);
  const before = process.memoryUsage();
  const image = openQcow2(path);
  const after = process.memoryUsage();
  const extent: Extent = { state: 'data', length: 0 };
  for (let at = 0; at < 64 * MiB; at += extent.length) image.extentAt(at, 64 * MiB - at, extent);
  t.equal(extent.state, 'unallocated');
  image.close();
  const grown = after.arrayBuffers - before.arrayBuffers;
  t.ok(grown < 200 * MiB, `${grown} bytes for a 32 MiB L1 table`);
});
