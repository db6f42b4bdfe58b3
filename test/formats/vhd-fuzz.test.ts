/** VHD with damaged footers, headers and tables: never a crash, a hang or unbounded memory. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readVhd } from '../../src/formats/vhd/vhd-image.js';
import { DYNAMIC_HEADER, FOOTER, LOCATOR_RELATIVE } from '../../src/formats/vhd/vhd-layout.js';
import { stampedModel } from '../support/disk-model.js';
import { MemoryFile } from '../support/memory-file.js';
import { type FuzzSubject, fuzzImages } from '../support/mutation-fuzz.js';
import { tempFolder } from '../support/temp-folder.js';
import { HEADER_OFFSET, sealVhd, type VhdPlan, writeVhd } from '../support/vhd-writer.js';
import { triesOr } from '../torture/tally.js';

const PARENT = {
  uuid: 'dddddddd-0000-0000-0000-000000000001',
  name: 'p.vhd',
  locators: [{ code: LOCATOR_RELATIVE, data: Buffer.from('..\\p.vhd', 'utf16le') }],
};

function subjectOf(folder: string, name: string, plan: Omit<VhdPlan, 'model'>): FuzzSubject {
  const isFixed = plan.type === 'fixed';
  const pattern = isFixed ? 'd' : 'ddduuduud';
  const model = stampedModel({ size: 1 << 18, unitSize: 512, pattern, salt: 1 });
  const path = join(folder, `${name}.vhd`);
  const layout = writeVhd(path, { ...plan, model });
  const bytes = readFileSync(path);
  const { footerOffset } = layout;
  const dynamicTables: [number, number][] = [
    [0, 88],
    [HEADER_OFFSET, 64],
    [HEADER_OFFSET + DYNAMIC_HEADER.offsetOf.parentName, 40],
    [HEADER_OFFSET + DYNAMIC_HEADER.offsetOf.parentLocators, 48],
    [layout.tableOffset, 64],
    ...[...layout.blockOffsets.values()].map((offset): [number, number] => [offset, 16]),
  ];
  return {
    name,
    bytes,
    tables: [[footerOffset, 88], ...(isFixed ? [] : dynamicTables)],
    reseal: (mutant) => {
      sealVhd(mutant.subarray(footerOffset, footerOffset + FOOTER.size), FOOTER.offsetOf.checksum);
      if (isFixed) return;
      sealVhd(mutant.subarray(0, FOOTER.size), FOOTER.offsetOf.checksum);
      const header = mutant.subarray(HEADER_OFFSET, HEADER_OFFSET + DYNAMIC_HEADER.size);
      sealVhd(header, DYNAMIC_HEADER.offsetOf.checksum);
    },
    open: (mutant) => {
      const image = readVhd(new MemoryFile(mutant));
      // The names are untrusted too.
      void image.parent?.names;
      return image;
    },
  };
}

t.test('mutants', async (t) => {
  const folder = tempFolder(t);
  const subjects = [
    subjectOf(folder, 'dynamic', { blockSize: 32768 }),
    subjectOf(folder, 'small-blocks', { blockSize: 4096 }),
    subjectOf(folder, 'differencing', { blockSize: 65536, type: 'differencing', parent: PARENT }),
    subjectOf(folder, 'fixed', { type: 'fixed' }),
  ];
  await fuzzImages(t, subjects, triesOr(4_000));
});
