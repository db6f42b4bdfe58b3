/** VHD images that we write, judged by our reader, by qemu-img, 7-Zip and libvhdi. */
import t from 'tap';
import { GiB } from '../../src/common/units.js';
import { writerSuite } from '../conformance/writer-suite.js';

const qemu = { format: 'vpc', check: false, chains: false };
const plain = { format: 'vhd', differencing: false, qemu, maxSize: 2040 * GiB } as const;
writerSuite(t, { ...plain, subformat: 'dynamic' });
writerSuite(t, { ...plain, subformat: 'fixed', preallocated: true });
writerSuite(t, {
  format: 'vhd',
  subformat: 'differencing',
  differencing: true,
  baseSubformat: 'dynamic',
});
