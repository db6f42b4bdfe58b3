/** qcow2 images that we write, judged by our reader and by qemu-img. */
import t from 'tap';
import { writerSuite } from '../conformance/writer-suite.js';

const qemu = { format: 'qcow2', check: true, chains: true };
for (const subformat of ['plain', 'compressed']) {
  writerSuite(t, { format: 'qcow2', subformat, differencing: true, resizes: true, qemu });
}
