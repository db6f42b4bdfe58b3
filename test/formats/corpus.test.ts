/**
 * The corpus: images that other programs made, crafted ones, and ones that were damaged on
 * purpose.
 */
import t from 'tap';
import { corpusSuite } from '../conformance/corpus-suite.js';

corpusSuite(t);
