/** qcow2 with damaged headers and tables: never a crash, a hang or unbounded memory. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readQcow2Header } from '../../src/formats/qcow2/qcow2-header.js';
import { Qcow2Image } from '../../src/formats/qcow2/qcow2-image.js';
import { stampedModel } from '../support/disk-model.js';
import { MemoryFile } from '../support/memory-file.js';
import { type FuzzSubject, fuzzImages } from '../support/mutation-fuzz.js';
import { type Qcow2Plan, writeQcow2 } from '../support/qcow2-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { triesOr } from '../torture/tally.js';

interface Shape extends Omit<Qcow2Plan, 'model'> {
  readonly size: number;
  readonly pattern: string;
}

const SHAPES: readonly Shape[] = [
  { clusterBits: 12, size: 1 << 18, pattern: 'dduz' },
  { clusterBits: 9, size: 1 << 16, pattern: 'ddduuzz' },
  { clusterBits: 14, size: 1 << 18, pattern: 'duzdd', extendedL2: true },
  { clusterBits: 12, size: 1 << 16, pattern: 'd', compressed: () => true },
  { clusterBits: 12, size: 1 << 16, pattern: 'd', compressed: () => true, compression: 'zstd' },
  { clusterBits: 12, size: 1 << 16, pattern: 'dud', version: 2 },
];

function subjectOf(folder: string, shape: Shape, index: number): FuzzSubject {
  const { size, pattern, ...plan } = shape;
  const clusterSize = 2 ** plan.clusterBits;
  const unitSize = plan.extendedL2 === true ? clusterSize / 32 : clusterSize;
  const model = stampedModel({ size, unitSize, pattern, salt: index });
  const snapshots = [{ name: 'one', model }];
  const path = join(folder, `${index}.qcow2`);
  const layout = writeQcow2(path, { ...plan, model, snapshots });
  const bytes = readFileSync(path);
  const packed = plan.compressed === undefined ? [] : [...layout.dataOffsets.values()];
  return {
    name: `shape ${index}`,
    bytes,
    tables: [
      [0, 112],
      [0, 512],
      [layout.l1Offset, 64],
      [layout.refcountTableOffset, 64],
      [layout.snapshotTableOffset, 100],
      ...[...layout.l2Offsets.values()].map((offset) => [offset, 256] as const),
      ...packed.map((offset) => [offset, Math.min(64, bytes.length - offset)] as const),
    ],
    open: (mutant) => {
      const image = new MemoryFile(mutant);
      const header = readQcow2Header(image);
      return new Qcow2Image({ image, data: image }, header, index % 2 === 0 ? undefined : 'one');
    },
  };
}

t.test('mutants', async (t) => {
  const folder = tempFolder(t);
  await fuzzImages(
    t,
    SHAPES.map((shape, index) => subjectOf(folder, shape, index)),
    triesOr(4_000),
  );
});
