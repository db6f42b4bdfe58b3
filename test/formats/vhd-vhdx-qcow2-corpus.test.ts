/** VHD, VHDX and qcow2 images of other makers, crafted and damaged ones. */
import t from 'tap';
import { corpusSuite } from '../conformance/corpus-suite.js';

corpusSuite(t, ['vhd', 'vhdx', 'qcow2']);
