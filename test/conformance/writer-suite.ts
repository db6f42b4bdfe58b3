/**
 * What every writer of images must do, whatever its format: run by each format's test for each of
 * its subformats.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readdirSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { GiB, KiB, MAX_DISK_SIZE, MiB, SECTOR_SIZE, TiB } from '../../src/common/units.js';
import type { Extent } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { openImage, writingOf } from '../../src/formats/registry.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import {
  delicateIslands,
  type Island,
  islandSource,
  modelSource,
  readIslands,
} from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { type Written, writeTestChain, writeTestImage } from '../support/written-image.js';
import { firstDifference, openDescriptors } from './image-suite.js';
import { failureSuite } from './writer-failures.js';
import type { WriterCapabilities } from './written-formats.js';

/** Runs the suite as a subtest. */
export function writerSuite(t: Test, capabilities: WriterCapabilities): void {
  const { format, subformat, differencing } = capabilities;
  t.test(`writing ${format}, ${subformat}`, { timeout: 300_000 }, async (t) => {
    const known = writingOf(format)!;
    const names = [...known.subformats, ...known.differencing];
    t.ok(names.includes(subformat), 'the subformat is one of the format');
    t.equal(known.differencing.includes(subformat), differencing, 'differencing images or not');
    if (differencing) {
      t.test('three images deep', async (t) => checkChain(t, capabilities));
    }
    if (capabilities.baseSubformat !== undefined) return;
    for (const options of WHOLE_DISKS) {
      const { name, ...shape } = options;
      t.test(name, async (t) => checkWholeDisk(t, capabilities, stampedModel(shape)));
    }
    if (capabilities.preallocated !== true) {
      t.test('a disk of terabytes', async (t) => checkHugeDisk(t, capabilities));
    }
    failureSuite(t, capabilities);
  });
}

const WHOLE_DISKS = [
  { name: 'empty', size: 3 * MiB, unitSize: 4 * KiB, pattern: 'u', salt: 1 },
  { name: 'full', size: 3 * MiB, unitSize: 4 * KiB, pattern: 'd', salt: 2 },
  { name: 'one sector', size: SECTOR_SIZE, unitSize: SECTOR_SIZE, pattern: 'd', salt: 3 },
  { name: 'sparse', size: 24 * MiB, unitSize: 512 * KiB, pattern: 'uuzuduuuzzzzdz', salt: 4 },
  {
    name: 'odd sectors',
    size: 2 * MiB,
    unitSize: SECTOR_SIZE,
    pattern: 'duuzuudzuuuuuuu',
    salt: 5,
  },
  {
    name: 'a last unit that is not whole',
    size: 5 * MiB + 7 * SECTOR_SIZE,
    unitSize: 64 * KiB,
    pattern: 'duuuzzzd',
    salt: 6,
  },
  {
    name: 'nothing but the last sector',
    size: 33 * MiB + SECTOR_SIZE,
    unitSize: 33 * MiB,
    pattern: 'ud',
    salt: 7,
  },
];

async function checkWholeDisk(
  t: Test,
  capabilities: WriterCapabilities,
  model: DiskModel,
): Promise<void> {
  const folder = tempFolder(t);
  const descriptors = openDescriptors();
  const path = join(folder, `image.${capabilities.format}`);
  const written = await writeTestImage(capabilities, path, modelSource([model]));
  t.equal(openDescriptors(), descriptors, 'nothing stays open');
  t.strictSame(
    readdirSync(folder).filter((name) => name.endsWith('.part')),
    [],
    'no temporary files are left',
  );
  checkContent(t, capabilities, path, model.content);
  if (capabilities.preallocated !== true) checkSparse(t, capabilities, written, model.content);
  checkWithQemu(t, capabilities, path, model.content);
}

/** Our own reader shows what was written, in steps of several lengths. */
function checkContent(
  t: Test,
  { format }: WriterCapabilities,
  path: string,
  content: Buffer,
): void {
  const base = new ImageBase(openChain(path, { format }));
  try {
    t.equal(base.virtualSize, content.length, 'virtual size');
    for (const step of [MiB, 65_000]) {
      const whole = Buffer.alloc(content.length, 0xee);
      for (let at = 0; at < content.length; at += step) {
        base.readAt(whole, at, at, Math.min(step, content.length - at));
      }
      t.equal(firstDifference(whole, content), -1, `content in steps of ${step}`);
    }
  } finally {
    base.close();
  }
}

/** What is zero is not stored: no step that the writer could have left out is `data`. */
function checkSparse(
  t: Test,
  { format, wholeUnits = false }: WriterCapabilities,
  { path, granularity }: Written,
  content: Buffer,
): void {
  const image = openImage(path, format);
  const step = Math.max(wholeUnits ? image.info().unitSize : granularity, 4 * KiB);
  const extent: Extent = { state: 'data', length: 0 };
  const zeroes = Buffer.alloc(step);
  const wrong: number[] = [];
  for (let at = 0; at < content.length; at += step) {
    const length = Math.min(step, content.length - at);
    const zero = content.compare(zeroes, 0, length, at, at + length) === 0;
    image.extentAt(at, length, extent);
    if (zero && (extent.state === 'data' || extent.length < length)) wrong.push(at);
  }
  image.close();
  t.strictSame(wrong, [], `zeroes are left out in steps of ${step}`);
}

function checkWithQemu(t: Test, { qemu }: WriterCapabilities, path: string, content: Buffer): void {
  const raw = join(tempFolder(t), 'expected.raw');
  const fd = openSync(raw, 'w');
  writeSync(fd, content);
  closeSync(fd);
  if (qemu !== undefined) compareWithQemu(t, qemu, path, raw);
}

function compareWithQemu(
  t: Test,
  qemu: NonNullable<WriterCapabilities['qemu']>,
  path: string,
  raw: string,
): void {
  const command = qemuImg(t);
  if (command === undefined) return;
  const run = (...args: string[]) => {
    try {
      return execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' });
    } catch (error) {
      return String((error as { stdout?: string }).stdout) + String(error);
    }
  };
  const compared = run('compare', '-f', 'raw', '-F', qemu.format, raw, path);
  t.match(compared, /identical/, 'qemu-img compare');
  if (qemu.check) t.match(run('check', '-f', qemu.format, path), /No errors/, 'qemu-img check');
}

async function checkHugeDisk(t: Test, capabilities: WriterCapabilities): Promise<void> {
  const folder = tempFolder(t);
  const { format, maxSize = MAX_DISK_SIZE, qemu } = capabilities;
  for (const size of new Set([Math.min(maxSize, 2 * TiB + GiB + 3 * SECTOR_SIZE), maxSize])) {
    const path = join(folder, `${size}.${format}`);
    const islands = delicateIslands(size);
    const written = await writeTestImage(capabilities, path, islandSource(size, islands));
    checkIslands(t, capabilities, written, size, islands);
    // The host's file system may hold no larger file.
    if (qemu === undefined || qemu.holes === false || size > 4 * TiB) continue;
    const raw = join(folder, 'expected.raw');
    const fd = openSync(raw, 'w');
    ftruncateSync(fd, size);
    for (const { offset, length } of islands) {
      const bytes = Buffer.alloc(length);
      readIslands(islands, bytes, 0, offset, length);
      writeSync(fd, bytes, 0, length, offset);
    }
    closeSync(fd);
    compareWithQemu(t, qemu, path, raw);
  }
}

function checkIslands(
  t: Test,
  { format, wholeUnits = false }: WriterCapabilities,
  { path, granularity }: Written,
  size: number,
  islands: readonly Island[],
): void {
  const images = openChain(path, { format });
  const unit = wholeUnits ? images[0]!.info().unitSize : granularity;
  const base = new ImageBase(images);
  t.equal(base.virtualSize, size, 'virtual size');
  const extent: Extent = { state: 'data', length: 0 };
  const wrong: string[] = [];
  let data = 0;
  for (let at = 0; at < size; at += extent.length) {
    base.extentAt(at, size - at, extent);
    if (extent.state === 'data') data += extent.length;
  }
  for (const { offset, length } of islands) {
    const from = Math.max(0, offset - 10_000);
    const to = Math.min(size, offset + length + 10_000);
    const found = Buffer.alloc(to - from, 0xee);
    const expected = Buffer.alloc(to - from);
    base.readAt(found, 0, from, to - from);
    readIslands(islands, expected, 0, from, to - from);
    if (!found.equals(expected)) wrong.push(`around ${offset}`);
  }
  base.close();
  t.strictSame(wrong, [], `content of a disk of ${size} bytes`);
  const most = islands.length * 2 * Math.max(unit, 4 * KiB);
  t.ok(data > 0 && data <= most, `${data} bytes of data, at most ${most}`);
}

/** A base and two children, sectors and units of each held in part. */
async function checkChain(t: Test, capabilities: WriterCapabilities): Promise<void> {
  const folder = tempFolder(t);
  const { format, qemu, resizes = false } = capabilities;
  const size = 9 * MiB + 5 * SECTOR_SIZE;
  const grown = resizes ? size + 3 * MiB : size;
  const models = [
    stampedModel({ size, unitSize: 192 * KiB, pattern: 'ddudzd', salt: 11 }),
    stampedModel({ size, unitSize: 12 * KiB, pattern: 'uuuuzzduuuuuuuuuuuuuuudzzzzzzu', salt: 12 }),
    stampedModel({
      size: grown,
      unitSize: SECTOR_SIZE,
      pattern: `${'u'.repeat(3000)}dz${'u'.repeat(700)}${'z'.repeat(2500)}`,
      salt: 13,
    }),
  ];
  const { subformat, baseSubformat = subformat } = capabilities;
  const chain = await writeTestChain({ format, subformat, baseSubformat }, folder, models);
  for (const [level, { written, content }] of chain.entries()) {
    checkContent(t, capabilities, written.path, content);
    if (level > 0) checkOwnUnits(t, capabilities, written, models[level]!);
    if (qemu?.chains === true) checkWithQemu(t, capabilities, written.path, content);
  }
}

/** A child says nothing of units that its model does not touch, and speaks for all others. */
function checkOwnUnits(
  t: Test,
  { format }: WriterCapabilities,
  { path, granularity }: Written,
  model: DiskModel,
): void {
  const image = openImage(path, format);
  const extent: Extent = { state: 'data', length: 0 };
  const wrong: number[] = [];
  for (let at = 0; at < model.size; at += granularity) {
    const length = Math.min(granularity, model.size - at);
    const first = Math.floor(at / model.unitSize);
    const last = Math.ceil((at + length) / model.unitSize);
    const absent = model.states.slice(first, last).every((state) => state === 'unallocated');
    image.extentAt(at, length, extent);
    if (extent.length < length || absent !== (extent.state === 'unallocated')) wrong.push(at);
  }
  image.close();
  t.strictSame(wrong, [], `a child holds its own units of ${granularity} bytes and no others`);
}
