/** VMDK: what an extent holds for itself is never shown as the disk's content. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { openVmdk } from '../../src/formats/vmdk/vmdk-image.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeMonolithic } from '../support/vmdk-writer.js';

const GRAIN = 4096;
const SECTOR = 512;
/** Where `writeMonolithic` puts the directory: after the header and the descriptor. */
const DIRECTORY = 21 * SECTOR;
/** Two tables of 64 entries. */
const MODEL = stampedModel({ size: GRAIN * 100, unitSize: GRAIN, pattern: 'd', salt: 1 });

/** An image changed by `change`; answers the grains that cannot be read. */
function lostGrains(t: Test, change: (file: Buffer, tables: number[]) => Buffer | undefined) {
  const path = join(tempFolder(t), 'disk.vmdk');
  writeMonolithic(path, MODEL, { entriesPerTable: 64 });
  const file = readFileSync(path);
  const tables = [0, 4].map((at) => file.readUInt32LE(DIRECTORY + at) * SECTOR);
  writeFileSync(path, change(file, tables) ?? file);
  return lostIn(t, path, MODEL);
}

function lostIn(t: Test, path: string, model: DiskModel): number[] {
  const base = new ImageBase([openVmdk(path)]);
  const lost: number[] = [];
  const bytes = Buffer.alloc(GRAIN);
  for (let at = 0; at < model.size; at += GRAIN) {
    try {
      base.readAt(bytes, 0, at, GRAIN);
      if (!bytes.equals(model.content.subarray(at, at + GRAIN))) t.fail(`wrong bytes at ${at}`);
    } catch (error) {
      t.match(error, { name: 'DiskError', code: 'damaged', errno: 'EIO' });
      lost.push(at / GRAIN);
    }
  }
  base.close();
  return lost;
}

const grains = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => from + index);

t.test('a grain in the directory or in a table', async (t) => {
  const placed = (grain: number, place: (tables: number[]) => number) =>
    lostGrains(t, (file, tables) => {
      file.writeUInt32LE(place(tables) / SECTOR, tables[0]! + grain * 4);
      return undefined;
    });
  t.strictSame(
    placed(3, () => DIRECTORY),
    [3],
    'on the directory',
  );
  t.strictSame(
    placed(4, ([first]) => first!),
    [4],
    'on its own table',
  );
  t.strictSame(
    placed(5, ([, second]) => second!),
    [5],
    'on the last table',
  );
  t.strictSame(
    placed(6, ([first]) => first! - GRAIN + SECTOR),
    [6],
    'that reaches into a table',
  );
});

t.test('a table in the header, the descriptor or the directory', async (t) => {
  for (const sector of [1, 5, DIRECTORY / SECTOR]) {
    const lost = lostGrains(t, (file) => {
      file.writeUInt32LE(sector, DIRECTORY + 4);
      return undefined;
    });
    t.strictSame(lost, grains(64, 100), `at sector ${sector}`);
  }
});

t.test('a descriptor behind the grains', async (t) => {
  const lost = lostGrains(t, (file) => {
    const descriptor = Buffer.from(file.subarray(SECTOR, DIRECTORY));
    file.fill(0xbd, SECTOR, DIRECTORY);
    file.writeBigUInt64LE(BigInt(file.length / SECTOR), 28);
    return Buffer.concat([file, descriptor]);
  });
  t.strictSame(lost, [], 'is no reason to refuse them');
});
