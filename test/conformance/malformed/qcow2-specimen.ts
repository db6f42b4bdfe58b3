/** Sound qcow2 images, which the kinds change. */
import { join } from 'node:path';
import { type Qcow2Layout, type Qcow2Plan, writeQcow2 } from '../../support/qcow2-writer.js';
import { between, type Made, type Scene, someModel } from './kind.js';

export interface Layout extends Qcow2Layout {
  readonly clusterBits: number;
  readonly clusterSize: number;
}

/** Bytes of the largest disk. */
export const MOST_BYTES = 2 ** 21;

export function makeQcow2(
  { folder, random }: Pick<Scene, 'folder' | 'random'>,
  plan: Partial<Omit<Qcow2Plan, 'model'>> & { letters?: string; name?: string } = {},
): Made<Layout> {
  const { name = 'disk.qcow2', letters = 'ddduz' } = plan;
  const clusterBits = plan.clusterBits ?? between(random, 9, 16);
  const clusterSize = 2 ** clusterBits;
  const most = Math.min(200, MOST_BYTES / clusterSize);
  const unitSize = clusterSize / (plan.extendedL2 === true ? 32 : 1);
  const units = between(random, 8, most) * (clusterSize / unitSize);
  const model = someModel(random, { unitSize, units, letters });
  const path = join(folder, name);
  const layout = writeQcow2(path, { ...plan, model, clusterBits });
  return { path, model, layout: { ...layout, clusterBits, clusterSize } };
}
