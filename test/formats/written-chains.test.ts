/**
 * Chains of VDIs, VHDs and VHDXs that we write: identity, names of parents, refusals, and what
 * others read in them.
 */
import { mkdirSync, renameSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { KiB, MiB } from '../../src/common/units.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage } from '../../src/formats/registry.js';
import { firstDifference } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { type DiskModel, mergedContent, stampedModel } from '../support/disk-model.js';
import { modelSource } from '../support/image-sources.js';
import { sevenZip, vhdiInfo } from '../support/second-readers.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeTestChain, writeTestImage } from '../support/written-image.js';

const CHAINS = [
  { format: 'vdi', subformat: 'diff', baseSubformat: 'static' },
  { format: 'vhd', subformat: 'differencing', baseSubformat: 'fixed' },
  { format: 'vhdx', subformat: 'differencing', baseSubformat: 'fixed' },
  { format: 'vhdx', subformat: 'differencing', baseSubformat: 'dynamic' },
] as const;
type Chain = (typeof CHAINS)[number];

/** 7-Zip opens no VHDX whose size is not a multiple of 4 KiB. */
const SIZE = 4 * MiB + 4 * KiB;
const MODELS: readonly DiskModel[] = [
  stampedModel({ size: SIZE, unitSize: 64 * KiB, pattern: 'duz', salt: 1 }),
  stampedModel({ size: SIZE, unitSize: 4 * KiB, pattern: 'uuuduzuuuuuuuu', salt: 2 }),
  stampedModel({ size: SIZE, unitSize: 512, pattern: `${'u'.repeat(61)}dz`, salt: 3 }),
];

for (const chain of CHAINS) {
  t.test(`${chain.format} on ${chain.baseSubformat}`, async (t) => {
    const folder = join(tempFolder(t), 'made');
    mkdirSync(folder);
    const levels = await writeTestChain(chain, folder, MODELS);
    const paths = levels.map(({ written }) => written.path);
    checkChain(t, folder, paths, levels.at(-1)!.content);
    await checkIdentity(t, chain, folder, paths);
    checkSecondReaders(t, chain, levels);
  });
  t.test(`names of a parent of a ${chain.format}`, async (t) => checkNames(t, chain));
  t.test(`refusals of ${chain.format}`, async (t) => checkRefusals(t, chain));
}

/** The files may move together: the names are relative. */
function checkChain(t: Test, folder: string, paths: readonly string[], content: Buffer): void {
  const moved = join(dirname(folder), 'moved');
  renameSync(folder, moved);
  const places = paths.map((path) => join(moved, basename(path))).reverse();
  const warnings: string[] = [];
  const images = openChain(places[0]!, { onWarning: (text) => warnings.push(text) });
  t.strictSame(
    images.map(({ path }) => path),
    places,
  );
  t.equal(firstDifference(readChain(images, 0, SIZE), content), -1, 'what the chain shows');
  t.strictSame(warnings, [], 'every parent is the one that the child was made from');
  t.equal(images[0]!.info().subformat, 'differencing');
  for (const image of images) image.close();
  renameSync(moved, folder);
}

/** Another image of the same name, size and content is not the parent. */
async function checkIdentity(
  t: Test,
  { format, baseSubformat }: Chain,
  folder: string,
  paths: readonly string[],
): Promise<void> {
  const [base, child] = paths;
  const aside = join(folder, `aside.${format}x`);
  renameSync(base!, aside);
  await writeTestImage({ format, subformat: baseSubformat }, base!, modelSource([MODELS[0]!]));
  t.throws(() => openChain(child!), { name: 'DiskError' }, 'an impostor is refused');
  renameSync(aside, base!);
}

function checkSecondReaders(
  t: Test,
  { format }: Chain,
  levels: Awaited<ReturnType<typeof writeTestChain>>,
): void {
  const read = sevenZip(t);
  for (const [level, { written, content }] of levels.entries()) {
    // 7-Zip reads no VDI that has a parent.
    if (read === undefined || (format === 'vdi' && level > 0)) continue;
    t.equal(firstDifference(read(written.path), content), -1, `7-Zip reads level ${level}`);
  }
  const info = format === 'vdi' ? undefined : vhdiInfo(t);
  if (info === undefined) return;
  for (const [level, { written }] of levels.entries()) {
    const found = info(written.path);
    if (level === 0) continue;
    const parent = levels[level - 1]!.written.path;
    t.equal(found.get('Disk type'), 'Differential', 'libvhdi: type');
    t.match(found.get('Media size'), `(${SIZE} bytes)`, 'libvhdi: size');
    t.match(found.get('Parent filename'), new RegExp(`level-${level - 1}\\.${format}$`));
    const parentId = openInfo(parent)[format === 'vhd' ? 'uuid' : 'data-write-guid'];
    t.equal(found.get('Parent identifier'), parentId, 'libvhdi: parent');
  }
}

function openInfo(path: string): Readonly<Record<string, string>> {
  const image = openImage(path);
  const { identity } = image.info();
  image.close();
  return identity;
}

/** Parents in other folders, under links, and with names that are none on Windows. */
async function checkNames(t: Test, { format, subformat, baseSubformat }: Chain): Promise<void> {
  const folder = tempFolder(t);
  const bases = join(folder, 'bases');
  const children = join(folder, 'children');
  mkdirSync(bases);
  mkdirSync(children);
  const models = MODELS.slice(0, 2).reverse();
  const child = { format, subformat };
  const write = async (parentPath: string, name: string, path: string) => {
    await writeTestImage(
      { format, subformat: baseSubformat },
      parentPath,
      modelSource([MODELS[0]!]),
    );
    const image = openImage(parentPath);
    try {
      await writeTestImage(child, path, modelSource(models), { parent: { image, name } });
    } finally {
      image.close();
    }
  };
  const check = (path: string, allowFolders: string[]) => {
    const images = openChain(path, { allowFolders });
    const shown = readChain(images, 0, SIZE);
    t.equal(firstDifference(shown, mergedContent(models)), -1, `content of ${path}`);
    for (const image of images) image.close();
  };
  const spaced = join(bases, `the base ü.${format}`);
  const relative = join(children, `relative.${format}`);
  await write(spaced, `../bases/the base ü.${format}`, relative);
  check(relative, [bases]);
  const other = join(bases, `other.${format}`);
  const absolute = join(children, `absolute.${format}`);
  await write(other, other, absolute);
  check(absolute, [bases]);
  symlinkSync(children, join(folder, 'link'));
  check(join(folder, 'link', `relative.${format}`), [bases]);
  if (format === 'vdi') return;
  for (const name of ['a:b', 'a\\b']) {
    const path = join(children, 'none');
    const parentPath = join(bases, `${name}.${format}`);
    await t.rejects(
      write(parentPath, `../bases/${name}.${format}`, path),
      { code: 'not-supported', message: /no Windows path can say/, hint: /backslashes and colons/ },
      name,
    );
  }
}

async function checkRefusals(t: Test, { format, subformat, baseSubformat }: Chain): Promise<void> {
  const folder = tempFolder(t);
  const source = modelSource([MODELS[0]!]);
  const path = join(folder, `none.${format}`);
  const raw = join(folder, 'base.raw');
  await writeTestImage({ format: 'raw', subformat: 'sparse' }, raw, source);
  const base = join(folder, `base.${format}`);
  await writeTestImage({ format, subformat: baseSubformat }, base, source);
  const onRaw = { image: openImage(raw, 'raw'), name: 'base.raw' };
  const onBase = { image: openImage(base), name: `base.${format}` };
  await t.rejects(
    writeTestImage({ format, subformat }, path, source, { parent: onRaw }),
    { code: 'not-supported', message: /base\.raw is raw/, hint: /--format qcow2$/ },
    'a parent of another format',
  );
  await t.rejects(
    writeTestImage({ format, subformat: baseSubformat }, path, source, { parent: onBase }),
    { code: 'usage', hint: new RegExp(`^with parent it is ${subformat}$`) },
    'a subformat without parents',
  );
  await t.rejects(
    writeTestImage({ format, subformat }, path, source),
    { code: 'usage', hint: /^without parent it is dynamic or/ },
    'a parent that is missing',
  );
  await t.rejects(
    writeTestImage({ format, subformat: 'thin' }, path, source),
    { code: 'usage', hint: /dynamic/ },
    'an unknown subformat',
  );
  onRaw.image.close();
  onBase.image.close();
}
