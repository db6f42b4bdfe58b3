/** Where files have data, asked of the host's file system. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { dataBytes } from '../../src/storage/sparse-file.js';
import { punchHole } from '../../src/storage/sparse-space.js';
import { tempFolder } from '../support/temp-folder.js';

const PAGE = 4 * KiB;

t.test('bytes of data in a range', async (t) => {
  const fd = openSync(join(await tempFolder(t), 'file'), 'w+');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, MiB);
  t.equal(dataBytes(fd, 0, MiB), 0, 'a hole');
  writeSync(fd, Buffer.alloc(4 * PAGE, 1), 0, 4 * PAGE, 8 * PAGE);
  writeSync(fd, Buffer.alloc(PAGE, 1), 0, PAGE, MiB - PAGE);
  t.equal(dataBytes(fd, 0, MiB), 5 * PAGE, 'two runs, the last one up to the end');
  t.equal(dataBytes(fd, 9 * PAGE, 11 * PAGE), 2 * PAGE, 'inside a run');
  t.equal(dataBytes(fd, 10 * PAGE, 20 * PAGE), 2 * PAGE, 'the end of a run');
  t.equal(dataBytes(fd, 12 * PAGE, MiB - PAGE), 0, 'between runs');
  punchHole(fd, 9 * PAGE, PAGE, 'test');
  t.equal(dataBytes(fd, 0, MiB), 4 * PAGE, 'a hole that was punched');
  t.equal(dataBytes(fd, MiB, 2 * MiB), 0, 'past the end');
});
