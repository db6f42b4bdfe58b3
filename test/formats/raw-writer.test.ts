/** Raw images that we write. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';
import { islandSource } from '../support/image-sources.js';
import { cannotMount, mountOn } from '../support/mount-guard.js';
import { tool } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeTestImage } from '../support/written-image.js';

for (const each of writtenSubformats('raw')) writerSuite(t, each);

t.test('space is taken by static images alone', async (t) => {
  const folder = tempFolder(t);
  const source = islandSource(16 * MiB, [{ offset: 5 * MiB, length: 4096 }]);
  const blocks = async (subformat: string) => {
    const path = join(folder, subformat);
    await writeTestImage({ format: 'raw', subformat }, path, source);
    return statSync(path).blocks * 512;
  };
  t.ok((await blocks('static')) >= 16 * MiB, 'static');
  t.ok((await blocks('sparse')) < MiB, 'sparse');
});

t.test('and that where the host knows no fallocate', { skip: cannotMount() }, async (t) => {
  const folder = tempFolder(t);
  const [host, on] = [join(folder, 'host.img'), join(folder, 'host')];
  await tool('truncate', ['-s', '16M', host]);
  // Without extents ext4 answers EOPNOTSUPP.
  await tool('mkfs.ext4', ['-q', '-F', '-O', '^extents,^64bit', host]);
  await mountOn(t, host, on, ['-o', 'loop']);
  await t.rejects(tool('fallocate', ['-l', '4096', join(on, 'probe')]), /not supported/);
  const source = islandSource(4 * MiB, [{ offset: MiB, length: 4096 }]);
  const path = join(on, 'static');
  await writeTestImage({ format: 'raw', subformat: 'static' }, path, source);
  t.equal(statSync(path).size, 4 * MiB);
  t.ok(statSync(path).blocks * 512 >= 4 * MiB, 'all of it takes space');
  const large = islandSource(32 * MiB, [{ offset: MiB, length: 4096 }]);
  const failing = writeTestImage({ format: 'raw', subformat: 'static' }, join(on, 'large'), large);
  await t.rejects(failing, { message: /ENOSPC/ });
  t.notOk(existsSync(join(on, 'large')));
});
