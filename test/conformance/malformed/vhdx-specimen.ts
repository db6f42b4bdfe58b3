/** Sound VHDXs, which the kinds change. */
import { join } from 'node:path';
import { KiB, MiB } from '../../../src/common/units.js';
import { type VhdxLayout, type VhdxPlan, writeVhdx } from '../../support/vhdx-writer.js';
import { between, type Made, type Scene, someModel } from './kind.js';

/** An identity that no disk has. */
export const UNKNOWN = '12345678-1234-1234-1234-123456789abc';

export function makeVhdx(
  { folder, random }: Pick<Scene, 'folder' | 'random'>,
  { name = 'disk.vhdx', ...plan }: Partial<Omit<VhdxPlan, 'model'>> & { name?: string } = {},
): Made<VhdxLayout> {
  const blockSize = random.pick([MiB, 2 * MiB]);
  const unitSize = plan.parent === undefined ? blockSize : 64 * KiB;
  const units = between(random, 2, 4) * (blockSize / unitSize);
  const letters = plan.parent === undefined ? 'ddz' : 'du';
  const model = someModel(random, { unitSize, units, letters });
  const path = join(folder, name);
  return { path, model, layout: writeVhdx(path, { ...plan, model, blockSize }) };
}
