/** Disks whose whole content lies in one raw file, so that others may read that instead. */
import { statSync } from 'node:fs';
import { errnoName } from '../../common/errors.js';
import { BLOCK_SIZE } from '../../common/units.js';
import type { BaseSpec } from '../base.js';
import { UNMAPPED } from '../shared/map-words.js';
import type { Volume } from './volume.js';

/**
 * The raw file whose bytes are those of `volume`: no delta holds anything, and the base is one raw
 * image of just that size.
 * @param base what the volume stands on. @returns undefined where there is no such file.
 */
export function flatFileOf(volume: Volume, base: BaseSpec | undefined): string | undefined {
  const image = base?.images[0];
  if (image === undefined || base?.images.length !== 1) return undefined;
  if (image.format !== 'raw' || image.window !== undefined) return undefined;
  const { size, map } = volume;
  const blocks = Math.ceil(size / BLOCK_SIZE);
  map.find(0, blocks);
  if (map.kind !== UNMAPPED || map.count < blocks) return undefined;
  return sizeOf(image.path) === size ? image.path : undefined;
}

function sizeOf(path: string): number | undefined {
  try {
    return statSync(path).size;
  } catch (error) {
    if (errnoName(error) === undefined) throw error;
    // Whoever reads the disk through us hears what is wrong with the image.
    return undefined;
  }
}
