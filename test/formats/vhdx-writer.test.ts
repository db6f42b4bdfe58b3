/** VHDX images that we write, judged by our reader, by qemu-img, 7-Zip and libvhdi. */
import t from 'tap';
import { writerSuite } from '../conformance/writer-suite.js';

const qemu = { format: 'vhdx', check: true, chains: false, holes: false };
const plain = { format: 'vhdx', differencing: false, wholeUnits: true, qemu } as const;
writerSuite(t, { ...plain, subformat: 'dynamic' });
writerSuite(t, { ...plain, subformat: 'fixed', preallocated: true });
writerSuite(t, {
  format: 'vhdx',
  subformat: 'differencing',
  differencing: true,
  baseSubformat: 'dynamic',
  resizes: true,
});
