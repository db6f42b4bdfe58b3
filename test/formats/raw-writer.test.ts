/** Raw images that we write. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MiB } from '../../src/common/units.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { islandSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeTestImage } from '../support/written-image.js';

const qemu = { format: 'raw', check: false, chains: false };
// A file of an ext4 file system ends at 16 TiB.
const sparse = { format: 'raw', subformat: 'sparse', differencing: false, qemu } as const;
writerSuite(t, { ...sparse, maxSize: 8 * MiB * MiB });
writerSuite(t, {
  format: 'raw',
  subformat: 'static',
  differencing: false,
  qemu,
  preallocated: true,
});

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
