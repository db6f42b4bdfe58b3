/**
 * Snapshots that VirtualBox takes of VMDKs: no parent's CID, no name, but UUIDs in the disk data
 * base, as in its VDIs.
 */
import { mkdirSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';
import t from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { type ChainOptions, openChain } from '../../src/formats/open-chain.js';
import { firstDifference } from '../conformance/image-suite.js';
import { mergedContent, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeMonolithic } from '../support/vmdk-writer.js';

const NIL = '00000000-0000-0000-0000-000000000000';
const uuidOf = (n: number) => `${String(n).padStart(8, '0')}-abcd-4000-8000-000000000000`;
const models = ['ddudz', 'duuuz', 'uduzuuu'].map((pattern, salt) =>
  stampedModel({ size: 40 * 4096, unitSize: 4096, pattern, salt }),
);

/** Image `n` of a chain, as VirtualBox writes it. */
function writeLink(path: string, n: number, parent = n === 0 ? NIL : uuidOf(n - 1)): void {
  const isBase = parent === NIL;
  writeMonolithic(path, models[n]!, {
    zeroedGrains: true,
    database: {
      'uuid.image': uuidOf(n),
      'uuid.modification': uuidOf(n + 100),
      'uuid.parent': parent,
      'uuid.parentmodification': isBase ? NIL : uuidOf(n + 99),
    },
  });
}

function namesOf(path: string, options: ChainOptions = {}): string[] {
  const images = openChain(path, options);
  for (const image of images) image.close();
  return images.map((image) => basename(image.path));
}

t.test('parents are found by the names of snapshots, or by their UUIDs', async (t) => {
  const folder = tempFolder(t);
  writeLink(join(folder, 'disk.vmdk'), 0);
  writeLink(join(folder, `{${uuidOf(1)}}.vmdk`), 1);
  writeLink(join(folder, 'now.vmdk'), 2);
  const warnings: string[] = [];
  const onWarning = (text: string) => warnings.push(text);
  const base = new ImageBase(openChain(join(folder, 'now.vmdk'), { onWarning }));
  const whole = Buffer.alloc(base.virtualSize);
  base.readAt(whole, 0, 0, whole.length);
  base.close();
  t.equal(firstDifference(whole, mergedContent([...models].reverse())), -1);
  t.strictSame(warnings, []);

  mkdirSync(join(folder, 'Snapshots'));
  const moved = join(folder, 'Snapshots', 'now.vmdk');
  renameSync(join(folder, 'now.vmdk'), moved);
  t.throws(() => namesOf(moved), {
    code: 'not-found',
    message: /now\.vmdk: its parent is missing/,
  });
  const names = ['now.vmdk', `{${uuidOf(1)}}.vmdk`, 'disk.vmdk'];
  t.strictSame(namesOf(moved, { allowFolders: [folder] }), names);
  const parents = [`{${uuidOf(1)}}.vmdk`, 'disk.vmdk'].map((name) => join(folder, name));
  t.strictSame(namesOf(moved, { parents }), names, 'a registry of disks');
});

t.test('another parent is refused, one that was written to is told', async (t) => {
  const folder = tempFolder(t);
  writeLink(join(folder, 'disk.vmdk'), 0);
  writeLink(join(folder, 'other.vmdk'), 0, uuidOf(7));
  const child = join(folder, 'now.vmdk');
  writeLink(child, 1, uuidOf(5));
  t.throws(() => openChain(child, { parent: join(folder, 'disk.vmdk') }), {
    code: 'damaged',
    message: /must be the disk with UUID 00000005-abcd.*, .*disk\.vmdk has UUID 00000000-abcd/,
  });
  writeLink(child, 2, uuidOf(0));
  t.throws(() => openChain(child), { code: 'exists', message: /several files claim/ });
  const warnings: string[] = [];
  const onWarning = (text: string) => warnings.push(text);
  namesOf(child, { parents: [join(folder, 'disk.vmdk')], onWarning });
  t.match(warnings.join('\n'), /disk\.vmdk was written to since its child was made/);
});
