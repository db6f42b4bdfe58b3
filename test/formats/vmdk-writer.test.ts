/** VMDKs that we write, judged by our reader, qemu-img, 7-Zip and libvmdk. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { GiB, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage } from '../../src/formats/registry.js';
import { SPLIT_SIZE, vmdkWriting } from '../../src/formats/vmdk/vmdk-writer.js';
import { writerSuite } from '../conformance/writer-suite.js';
import { writtenSubformats } from '../conformance/written-formats.js';
import { stampedModel } from '../support/disk-model.js';
import { islandSource, modelSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg, tool } from '../support/tools.js';
import { writeTestImage } from '../support/written-image.js';

const GRAIN = 65536;

for (const each of writtenSubformats('vmdk')) writerSuite(t, each);

/** The whole disk as our reader shows it equals the model. */
function checkAgainst(t: Test, path: string, content: Buffer): void {
  const [image] = openChain(path);
  const whole = Buffer.alloc(image!.virtualSize);
  const extent = { state: 'data' as const, length: 0 };
  for (let at = 0; at < whole.length; at += extent.length) {
    image!.extentAt(at, whole.length - at, extent);
    if (extent.state === 'data') image!.readAt(whole, at, at, extent.length);
  }
  image!.close();
  t.ok(whole.equals(content), `${path} shows what was written`);
}

const SMALL = stampedModel({ size: 9 * GRAIN + 1536, unitSize: GRAIN, pattern: 'duud', salt: 1 });

function write(
  path: string,
  subformat: string,
  model = SMALL,
  parent?: { path: string; name: string },
) {
  const image = parent === undefined ? undefined : openImage(parent.path);
  const link = image && { image, name: parent!.name };
  const source = modelSource([model]);
  return writeTestImage(
    { format: 'vmdk', subformat },
    path,
    source,
    link === undefined ? {} : { parent: link },
  ).finally(() => image?.close());
}

t.test('file names with spaces, other letters, and without an extension', async (t) => {
  const qemuPath = qemuImg(t);
  for (const name of [
    'my disk.vmdk',
    'd\u00fcsk \u78c1\u76d8.VMDK',
    "it's.vmdk",
    'plain',
    'a=b.vmdk',
  ]) {
    for (const subformat of vmdkWriting.subformats) {
      const folder = tempFolder(t);
      const path = join(folder, name);
      await write(path, subformat);
      checkAgainst(t, path, SMALL.content);
      if (qemuPath === undefined) continue;
      writeFileSync(join(folder, 'raw'), SMALL.content);
      const args = ['compare', '-f', 'vmdk', '-F', 'raw', path, join(folder, 'raw')];
      t.equal(spawnSync(qemuPath, args).status, 0, `qemu-img finds ${subformat} "${name}" equal`);
    }
  }
  t.strictSame(await extentNames(t, 'my disk.vmdk', 'twoGbMaxExtentFlat'), [
    'my disk-f001.vmdk',
    'my disk.vmdk',
  ]);
  t.strictSame(await extentNames(t, 'x', 'twoGbMaxExtentSparse'), ['x', 'x-s001.vmdk']);
  t.strictSame(await extentNames(t, 'x.vmdk', 'monolithicFlat'), ['x-flat.vmdk', 'x.vmdk']);
});

async function extentNames(t: Test, name: string, subformat: string): Promise<string[]> {
  const folder = tempFolder(t);
  await write(join(folder, name), subformat);
  return readdirSync(folder).sort();
}

t.test('names that a descriptor cannot hold', async (t) => {
  for (const name of ['a"b.vmdk', 'a\\b.vmdk', 'a:b.vmdk', 'line\nend.vmdk']) {
    const folder = tempFolder(t);
    const path = join(folder, name);
    await t.rejects(write(path, 'monolithicFlat'), {
      code: 'not-supported',
      message: /cannot name the file/,
    });
    t.strictSame(readdirSync(folder), [], 'nothing is left behind');
    await write(path, 'monolithicSparse');
    checkAgainst(t, path, SMALL.content);
  }
});

t.test('splits where VMware splits', async (t) => {
  for (const [size, extents] of [
    [SPLIT_SIZE, 1],
    [SPLIT_SIZE + SECTOR_SIZE, 2],
    [2 * GiB, 2],
  ] as const) {
    for (const subformat of ['twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
      const folder = tempFolder(t);
      const path = join(folder, 'disk.vmdk');
      const islands = [
        { offset: 0, length: 4096 },
        { offset: size - 5 * SECTOR_SIZE, length: 5 * SECTOR_SIZE },
      ];
      const source = islandSource(size, islands);
      await writeTestImage({ format: 'vmdk', subformat }, path, source);
      t.equal(readdirSync(folder).length, 1 + extents, `${size} bytes, ${subformat}`);
      const image = openImage(path);
      t.equal(image.virtualSize, size);
      const [found, expected] = [Buffer.alloc(2560), Buffer.alloc(2560)];
      image.readAt(found, 0, size - 2560, 2560);
      source.readAt(expected, 0, size - 2560, 2560);
      t.ok(found.equals(expected), 'the end is where it belongs');
      image.close();
    }
  }
});

t.test('an extent file that is there already', async (t) => {
  for (const [subformat, extent] of [
    ['monolithicFlat', 'disk-flat.vmdk'],
    ['twoGbMaxExtentSparse', 'disk-s001.vmdk'],
    ['twoGbMaxExtentFlat', 'disk-f001.vmdk'],
  ] as const) {
    const folder = tempFolder(t);
    writeFileSync(join(folder, extent), 'precious');
    const error = { code: 'exists', message: `${join(folder, extent)} exists already` };
    await t.rejects(write(join(folder, 'disk.vmdk'), subformat), error);
    t.strictSame(readdirSync(folder), [extent], 'nothing else is there');
    t.equal(readFileSync(join(folder, extent), 'utf8'), 'precious');
  }
});

t.test('children: identity, hidden data, and parents that are refused', async (t) => {
  const folder = tempFolder(t);
  mkdirSync(join(folder, 'sub'));
  const base = join(folder, 'base.vmdk');
  await write(base, 'streamOptimized');
  const states = { size: SMALL.size, unitSize: GRAIN, pattern: 'zuud', salt: 2 };
  for (const subformat of vmdkWriting.differencing) {
    const path = join(folder, 'sub', `${subformat}.vmdk`);
    const parent = { path: base, name: '../base.vmdk' };
    await write(path, subformat, stampedModel(states), parent);
    const images = openChain(path, { allowFolders: [folder] });
    const [child, below] = images.map((image) => image.info());
    t.equal(child?.subformat, subformat);
    t.equal(child?.identity['parent-cid'], below?.identity.cid, 'the CID of the parent');
    t.not(child?.identity.cid, below?.identity.cid, 'and one of its own');
    for (const image of images) image.close();
    const [version, flags] = headerWords(subformat, path);
    t.strictSame([version, flags], [2, 7], 'version 2, with zeroed grains');
  }
  const other = join(folder, 'raw');
  writeFileSync(other, SMALL.content);
  const path = join(folder, 'child.vmdk');
  await t.rejects(write(path, 'monolithicSparse', SMALL, { path: other, name: 'raw' }), {
    code: 'not-supported',
    message: /the parent of a vmdk must be a vmdk, .*raw is raw/,
    hint: /--format qcow2$/,
  });
  const larger = stampedModel({ ...states, size: SMALL.size + 512 });
  await t.rejects(write(path, 'monolithicSparse', larger, { path: base, name: 'base.vmdk' }), {
    code: 'not-supported',
    message: /has the size of its parent/,
    hint: /leave --differencing out$/,
  });
  t.strictSame(readdirSync(folder).sort(), ['base.vmdk', 'raw', 'sub']);
});

function headerWords(subformat: string, path: string): [number, number] {
  const file = subformat === 'monolithicSparse' ? path : path.replace('.vmdk', '-s001.vmdk');
  const head = readFileSync(file);
  return [head.readUInt32LE(4), head.readUInt32LE(8)];
}

t.test('limits are named', async (t) => {
  const folder = tempFolder(t);
  const size = 4096 * SPLIT_SIZE + SECTOR_SIZE;
  const what = { format: 'vmdk', subformat: 'twoGbMaxExtentSparse' } as const;
  await t.rejects(writeTestImage(what, join(folder, 'disk.vmdk'), islandSource(size, [])), {
    code: 'not-supported',
    message: /twoGbMaxExtentSparse holds at most 8188 GiB, the disk is of 8791798055424 bytes/,
  });
  t.strictSame(readdirSync(folder), []);
});

t.test('7-Zip and libvmdk read ours the same', async (t) => {
  const folder = tempFolder(t);
  const zip = tool(t, '7z', ['i']);
  const info = tool(t, 'vmdkinfo', ['-V']);
  for (const subformat of vmdkWriting.subformats) {
    const path = join(folder, subformat, 'disk.vmdk');
    mkdirSync(join(folder, subformat));
    await write(path, subformat);
    if (zip !== undefined) {
      const bytes = execFileSync(zip, ['e', '-so', path], { maxBuffer: 4 * MiB, stdio: 'pipe' });
      t.ok(bytes.equals(SMALL.content), `7-Zip, ${subformat}`);
    }
    if (info === undefined) continue;
    const text = execFileSync(info, [path], { encoding: 'utf8' });
    t.match(text, `(${SMALL.size} bytes)`, `libvmdk, ${subformat}`);
  }
});
