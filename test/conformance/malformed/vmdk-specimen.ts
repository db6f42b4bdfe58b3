/** Sound VMDKs, which the kinds change. */
import { join } from 'node:path';
import { KiB } from '../../../src/common/units.js';
import type { DiskModel } from '../../support/disk-model.js';
import type { Random } from '../../support/random.js';
import { descriptorText, writeMonolithic } from '../../support/vmdk-writer.js';
import { between, type Made, type Scene, someModel } from './kind.js';

/** Of the disks in one file. */
export const CID = 'cafe0001';

export function modelOf(random: Random, letters = 'ddu'): DiskModel {
  const unitSize = random.pick([4 * KiB, 16 * KiB, 64 * KiB]);
  return someModel(random, { unitSize, units: between(random, 8, 40), letters });
}

export function monolithic({ folder, random }: Pick<Scene, 'folder' | 'random'>): Made<undefined> {
  const model = modelOf(random);
  const path = join(folder, 'disk.vmdk');
  writeMonolithic(path, model, { entriesPerTable: 512, cid: CID });
  return { path, model, layout: undefined };
}

export function extents(...lines: string[]): string {
  return descriptorText({ createType: 'custom', extents: lines });
}
