/** Maps of images whose files were cut off: what is lost lies nowhere. */
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { MapExtent } from '../../src/common/extent-map.js';
import { MiB } from '../../src/common/units.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { stampedModel } from '../support/disk-model.js';
import { writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeVhd } from '../support/vhd-writer.js';
import { writeVhdx } from '../support/vhdx-writer.js';
import { descriptorText } from '../support/vmdk-writer.js';

const CLUSTER = 65536;
const model = stampedModel({ size: 4 * CLUSTER, unitSize: CLUSTER, pattern: 'd', salt: 1 });

function mapOf(path: string, from: number): MapExtent[] {
  const base = new ImageBase(openChain(path));
  const pieces: MapExtent[] = [];
  for (let at = from; at < base.virtualSize; at += pieces.at(-1)!.length) {
    pieces.push(base.mapAt(at, base.virtualSize - at));
  }
  base.close();
  return pieces;
}

t.test('a flat extent', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.vmdk');
  const flat = join(folder, 'disk-flat.vmdk');
  const extents = [`RW ${model.size / 512} FLAT "disk-flat.vmdk" 2`];
  writeFileSync(path, descriptorText({ createType: 'monolithicFlat', extents }));
  const kept = 3 * CLUSTER - 1536;
  writeFileSync(flat, Buffer.concat([Buffer.alloc(1024, 1), model.content.subarray(0, kept)]));
  const data = { depth: 0, present: true, zero: false, data: true };
  t.strictSame(mapOf(path, 512), [
    { start: 512, length: kept - 512, ...data, file: flat, offset: 1536 },
    { start: kept, length: model.size - kept, ...data, file: path },
  ]);
});

t.test('a cluster', async (t) => {
  const path = join(tempFolder(t), 'disk.qcow2');
  const { dataOffsets } = writeQcow2(path, { model, clusterBits: 16, place: (nth) => 100 + nth });
  const last = dataOffsets.get(3)!;
  truncateSync(path, last + 1024);
  const start = 3 * CLUSTER;
  const data = { depth: 0, present: true, zero: false, data: true, file: path };
  t.strictSame(mapOf(path, start + 512), [
    { start: start + 512, length: 512, ...data, offset: last + 512 },
    { start: start + 1024, length: CLUSTER - 1024, ...data },
  ]);
});

t.test('a block of a VHD or a VHDX', async (t) => {
  const folder = tempFolder(t);
  const disk = stampedModel({ size: 2 * MiB, unitSize: MiB, pattern: 'd', salt: 1 });
  const vhd = join(folder, 'disk.vhd');
  const vhdx = join(folder, 'disk.vhdx');
  const { blockOffsets, bitmapSize } = writeVhd(vhd, {
    ...{ model: disk, type: 'dynamic', blockSize: MiB },
  });
  const blocks = writeVhdx(vhdx, { model: disk, blockSize: MiB }).blockOffsets;
  const data = { depth: 0, present: true, zero: false, data: true };
  for (const [file, last] of [
    [vhd, blockOffsets.get(1)! + bitmapSize],
    [vhdx, blocks.get(1)!],
  ] as const) {
    truncateSync(file, last + 1024);
    t.strictSame(
      mapOf(file, MiB + 512),
      [
        { start: MiB + 512, length: 512, ...data, file, offset: last + 512 },
        { start: MiB + 1024, length: MiB - 1024, ...data, file },
      ],
      file,
    );
  }
});
