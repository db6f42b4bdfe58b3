/** A VMDK that holds no data: the description of a raw file that lies elsewhere. */
import { SECTOR_SIZE } from '../common/units.js';
import { descriptorText } from './vmdk/descriptor-text.js';

export interface RawDescriptor {
  /** The raw file, absolute. */
  readonly file: string;
  /** Bytes. */
  readonly size: number;
  /** By which VirtualBox knows the image. */
  readonly uuid: string;
}

/**
 * `monolithicFlat`: what is written to it goes to the raw file. VirtualBox, VMware and QEMU take
 * the absolute name of an extent as it is.
 * @param path for messages.
 * @throws DiskError `not-supported` for a name that a descriptor cannot hold.
 */
export function rawDescriptor(path: string, { file, size, uuid }: RawDescriptor): Buffer {
  const sectors = size / SECTOR_SIZE;
  return descriptorText(path, {
    createType: 'monolithicFlat',
    virtualSize: size,
    extents: [{ access: 'RW', sectors, kind: 'FLAT', file, offsetSectors: 0 }],
    uuid,
  });
}
