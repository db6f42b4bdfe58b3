/** Malformed and hostile images of every format, made anew from a seed. */
import t from 'tap';
import { malformedSuite } from '../conformance/malformed/malformed-suite.js';

t.test('malformed images', { timeout: 600_000 }, malformedSuite);
