/** qcow2 images that we write, judged by our reader and by qemu-img. */
import t from 'tap';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';

for (const each of writtenSubformats('qcow2')) writerSuite(t, each);
