/** VHDX with damaged headers, tables and logs: never a crash, a hang or unbounded memory. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { VhdxImage } from '../../src/formats/vhdx/vhdx-image.js';
import {
  HEADER_OFFSETS,
  HEADER_SIZE,
  REGION_TABLE_OFFSETS,
  REGION_TABLE_SIZE,
} from '../../src/formats/vhdx/vhdx-layout.js';
import { stampedModel } from '../support/disk-model.js';
import { MemoryFile } from '../support/memory-file.js';
import { type FuzzSubject, fuzzImages } from '../support/mutation-fuzz.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildLogEntry, sealLogEntry } from '../support/vhdx-log-writer.js';
import {
  BAT_OFFSET,
  LOG_GUID,
  LOG_OFFSET,
  METADATA_OFFSET,
  seal,
  type VhdxPlan,
  writeVhdx,
} from '../support/vhdx-writer.js';
import { triesOr } from '../torture/tally.js';

const SIZE = 3 * MiB;
const PARENT = {
  parent_linkage: '{aaaaaaaa-0000-0000-0000-000000000001}',
  relative_path: '..\\p.vhdx',
};
const LOG_ENTRY_LENGTH = 3 * 4096;

function resealAll(bytes: Buffer): void {
  for (const offset of HEADER_OFFSETS) seal(bytes.subarray(offset, offset + HEADER_SIZE));
  for (const offset of REGION_TABLE_OFFSETS) {
    seal(bytes.subarray(offset, offset + REGION_TABLE_SIZE));
  }
  sealLogEntry(bytes.subarray(LOG_OFFSET, LOG_OFFSET + LOG_ENTRY_LENGTH));
}

function subjectOf(
  folder: string,
  name: string,
  plan: Omit<VhdxPlan, 'model' | 'blockSize'>,
): FuzzSubject {
  const isDifferencing = plan.parent !== undefined;
  const unitSize = isDifferencing ? (plan.logicalSectorSize ?? 512) : MiB;
  const model = stampedModel({ size: SIZE, unitSize, pattern: 'dud', salt: 1 });
  const path = join(folder, `${name}.vhdx`);
  const layout = writeVhdx(path, { ...plan, model, blockSize: MiB });
  const bytes = readFileSync(path);
  if (plan.logGuid !== undefined) {
    const sectors = [BAT_OFFSET, METADATA_OFFSET].map((offset) => ({
      offset,
      sector: Buffer.from(bytes.subarray(offset, offset + 4096)),
    }));
    buildLogEntry({
      sequenceNumber: 9n,
      tail: 0,
      logGuid: LOG_GUID,
      writes: [{ offset: BAT_OFFSET + 4096, zeroLength: 8192 }, ...sectors],
      flushedFileOffset: bytes.length,
      lastFileOffset: bytes.length,
    }).copy(bytes, LOG_OFFSET);
  }
  return {
    name,
    bytes,
    tables: [
      ...HEADER_OFFSETS.map((offset) => [offset, 80] as const),
      ...REGION_TABLE_OFFSETS.map((offset) => [offset, 80] as const),
      [LOG_OFFSET, LOG_ENTRY_LENGTH - 4096],
      [LOG_OFFSET, 200],
      [METADATA_OFFSET, 32 + 6 * 32],
      [METADATA_OFFSET + 64 * 1024, 400],
      [BAT_OFFSET, 32],
      ...[...layout.bitmapOffsets.values()].map((offset) => [offset, 1024] as const),
    ],
    reseal: resealAll,
    open: (mutant) => new VhdxImage(new MemoryFile(mutant)),
  };
}

t.test('mutants', async (t) => {
  const folder = tempFolder(t);
  const subjects = [
    subjectOf(folder, 'dynamic', {}),
    subjectOf(folder, 'differencing', { parent: PARENT }),
    subjectOf(folder, 'large-sectors', { parent: PARENT, logicalSectorSize: 4096 }),
    subjectOf(folder, 'dirty', { logGuid: LOG_GUID }),
  ];
  await fuzzImages(t, subjects, triesOr(4_000));
});
