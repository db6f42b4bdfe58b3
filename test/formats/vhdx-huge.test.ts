/** VHDX of sizes that only sparse files can have in a test. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { GiB, MiB, TiB } from '../../src/common/units.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { openVhdx } from '../../src/formats/vhdx/vhdx-image.js';
import { HEADER_OFFSETS, REGION_TABLE_OFFSETS } from '../../src/formats/vhdx/vhdx-layout.js';
import { readChain } from '../support/chain-reader.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { METADATA_OFFSET, seal, writeVhdx } from '../support/vhdx-writer.js';

t.test('blocks and bitmaps past 4 GiB and 2^41', async (t) => {
  const folder = tempFolder(t);
  for (const far of [5 * GiB, 3 * TiB]) {
    const model = stampedModel({ size: 3 * MiB, unitSize: 512, pattern: 'duud', salt: 1 });
    const path = join(folder, `${far}.vhdx`);
    const parent = { parent_linkage: '{aaaaaaaa-0000-0000-0000-000000000001}', relative_path: 'p' };
    const place = (nth: number) => far + nth * MiB;
    writeVhdx(path, { model, blockSize: MiB, parent, place });
    const image = openVhdx(path);
    t.ok(readChain([image], 0, model.size).equals(model.content), `from ${far} on`);
    image.close();
  }
});

/** An image of 64 TiB with blocks of 1 MiB: its table of 512 MiB lies past 2^31 of the file. */
function makeLargest(path: string, logicalSectorSize: 512 | 4096): number {
  const model = stampedModel({ size: MiB, unitSize: MiB, pattern: 'u', salt: 1 });
  writeVhdx(path, { model, blockSize: MiB, logicalSectorSize });
  const batOffset = 3 * GiB;
  const chunks = (64 * TiB) / (2 ** 23 * logicalSectorSize);
  const batLength = Math.ceil(((64 * MiB + chunks) * 8) / MiB) * MiB;
  const fd = openSync(path, 'r+');
  ftruncateSync(fd, 6 * TiB);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(64 * TiB));
  writeSync(fd, size, 0, 8, METADATA_OFFSET + 64 * 1024 + 8);
  const table = Buffer.alloc(64 * 1024);
  for (const offset of REGION_TABLE_OFFSETS) {
    table.fill(0);
    table.write('regi');
    table.writeUInt32LE(2, 8);
    Buffer.from('6677c22d23f600429d64115e9bfd4a08', 'hex').copy(table, 16);
    table.writeBigUInt64LE(BigInt(batOffset), 32);
    table.writeUInt32LE(batLength, 40);
    table.writeUInt32LE(1, 44);
    Buffer.from('06a27c8b90479a4bb8fe575f050f886e', 'hex').copy(table, 48);
    table.writeBigUInt64LE(BigInt(METADATA_OFFSET), 64);
    table.writeUInt32LE(MiB, 72);
    table.writeUInt32LE(1, 76);
    seal(table);
    writeSync(fd, table, 0, table.length, offset);
  }
  const perChunk = (2 ** 23 * logicalSectorSize) / MiB;
  for (const [block, offset] of [
    [64 * MiB - 1, 5 * TiB],
    [64 * MiB - 2, 5 * TiB - MiB],
    [12_345_678, 4 * GiB],
  ] as const) {
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64LE((BigInt(offset / MiB) << 20n) | 6n);
    const at = block + Math.floor(block / perChunk);
    writeSync(fd, entry, 0, 8, batOffset + at * 8);
    writeSync(fd, Buffer.from(`block ${block}`), 0, undefined, offset);
  }
  closeSync(fd);
  return HEADER_OFFSETS.length;
}

t.test('64 TiB in blocks of 1 MiB', async (t) => {
  const folder = tempFolder(t);
  for (const logicalSectorSize of [512, 4096] as const) {
    const path = join(folder, `${logicalSectorSize}.vhdx`);
    makeLargest(path, logicalSectorSize);
    const before = process.memoryUsage().arrayBuffers;
    const image = openVhdx(path);
    t.equal(image.virtualSize, 64 * TiB);
    for (const block of [64 * MiB - 1, 64 * MiB - 2, 12_345_678]) {
      const bytes = readChain([image], block * MiB, 20);
      t.equal(bytes.toString('latin1').split('\0', 1)[0], `block ${block}`);
    }
    const extent: Extent = { state: 'data', length: 0 };
    image.extentAt(64 * TiB - 2 * MiB, 2 * MiB, extent);
    t.strictSame(extent, { state: 'data', length: 2 * MiB });
    let at = 0;
    let runs = 0;
    for (; at < 2 * TiB; at += extent.length) {
      image.extentAt(at, image.virtualSize - at, extent);
      runs += 1;
    }
    t.ok(runs < 1000, `${runs} runs`);
    const grown = process.memoryUsage().arrayBuffers - before;
    t.ok(grown < 32 * MiB, `${grown} bytes for a table of 512 MiB`);
    image.close();
  }
});
