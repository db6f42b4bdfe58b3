/** VDI images that we write, judged by our reader, by qemu-img, and by the layout itself. */
import t from 'tap';
import { writerSuite } from '../conformance/writer-suite.js';

const qemu = { format: 'vdi', check: true, chains: false };
const plain = { format: 'vdi', differencing: false, wholeUnits: true, qemu } as const;
writerSuite(t, { ...plain, subformat: 'dynamic' });
writerSuite(t, { ...plain, subformat: 'static', preallocated: true });
writerSuite(t, {
  format: 'vdi',
  subformat: 'diff',
  differencing: true,
  baseSubformat: 'dynamic',
  resizes: true,
});
