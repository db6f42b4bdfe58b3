/**
 * What every disk image reader must do, whatever its format: run by each format's test with images
 * of its own.
 */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import type { Test } from 'tap';
import { SECTOR_SIZE } from '../../src/common/units.js';
import type { DiskImage, Extent, ExtentState } from '../../src/engine/disk-image.js';
import { ImageBase } from '../../src/formats/base.js';
import { type DiskModel, stateAt } from '../support/disk-model.js';
import { createRandom, type Random } from '../support/random.js';

/** What a format, or this image of it, cannot tell apart. */
export interface ImageCapabilities {
  readonly format: string;
  /** False where zero units are stored as data. */
  readonly zeroExtents: boolean;
  /** False where every byte is data or zero (raw, fixed images). */
  readonly unallocatedExtents: boolean;
  /** Random reads made; default 200. */
  readonly reads?: number;
}

/** Opens the image anew at each call. */
export type ImageFactory = () => DiskImage;

/** Runs the suite as a subtest. `model` is what the image was made from. */
export function imageSuite(
  t: Test,
  name: string,
  factory: ImageFactory,
  model: DiskModel,
  capabilities: ImageCapabilities,
): void {
  t.test(name, async (t) => {
    const random = createRandom(model.size + model.states.length);
    const descriptorsBefore = openDescriptors();
    const image = factory();
    const filesBefore = fileStates(image.files);
    checkFacts(t, image, model, capabilities);
    checkTiling(t, image, model, capabilities);
    checkRandomExtents(t, image, model, random, capabilities);
    checkReads(t, image, model, random, capabilities.reads ?? 200);
    checkWholeDisk(t, image, model);
    checkLocations(t, image, model);
    t.strictSame(fileStates(image.files), filesBefore, 'files and their times are untouched');
    image.close();
    t.equal(openDescriptors(), descriptorsBefore, 'close gives back every descriptor');
  });
}

function checkFacts(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  capabilities: ImageCapabilities,
): void {
  const info = image.info();
  t.equal(image.format, capabilities.format, 'format');
  t.equal(info.format, capabilities.format, 'format in info');
  t.equal(image.virtualSize, model.size, 'virtual size');
  t.equal(info.virtualSize, model.size, 'virtual size in info');
  t.equal(image.files[0], image.path, 'main file comes first');
  t.ok(info.allocatedSize >= 0 && info.allocatedSize <= model.size, 'allocated size is in range');
  t.ok(info.subformat.length > 0, `subformat ${info.subformat}`);
}

/** Whether `told` is right for a place of which the model says `meant`. */
function agrees(told: ExtentState, meant: ExtentState, capabilities: ImageCapabilities): boolean {
  if (told === meant) return true;
  if (meant === 'zero' && !capabilities.zeroExtents) return told === 'data';
  if (meant === 'unallocated' && !capabilities.unallocatedExtents) return told !== 'unallocated';
  return false;
}

/** The first sector of a run that contradicts the model; -1 when none does. */
function wrongSector(
  start: number,
  extent: Extent,
  model: DiskModel,
  capabilities: ImageCapabilities,
): number {
  const end = start + extent.length;
  for (let at = start; at < end; at += SECTOR_SIZE - (at % SECTOR_SIZE)) {
    if (!agrees(extent.state, stateAt(model, at), capabilities)) return at;
  }
  return -1;
}

function checkTiling(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  capabilities: ImageCapabilities,
): void {
  const extent: Extent = { state: 'data', length: 0 };
  for (const step of [model.size, 4096, model.unitSize + 512]) {
    let wrong = -1;
    let at = 0;
    while (at < model.size && wrong < 0) {
      const length = Math.min(step, model.size - at);
      image.extentAt(at, length, extent);
      wrong =
        extent.length < 1 || extent.length > length
          ? at
          : wrongSector(at, extent, model, capabilities);
      at += extent.length;
    }
    t.equal(wrong, -1, `extents of at most ${step} bytes tile the disk and are right`);
  }
}

function checkRandomExtents(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  random: Random,
  capabilities: ImageCapabilities,
): void {
  const extent: Extent = { state: 'data', length: 0 };
  const wrong: string[] = [];
  for (let round = 0; round < 200; round += 1) {
    const offset = random.below(model.size);
    const length = 1 + random.below(Math.min(model.size - offset, 3 * model.unitSize));
    image.extentAt(offset, length, extent);
    const inRange = extent.length >= 1 && extent.length <= length;
    if (!inRange || wrongSector(offset, extent, model, capabilities) >= 0) {
      wrong.push(`${offset}+${length}: ${extent.state} ${extent.length}`);
    }
  }
  t.strictSame(wrong, [], 'extents at unaligned offsets are right');
}

/**
 * Ranges that have gone wrong in other readers: single bytes, both sides of every unit's border,
 * the end.
 */
function* delicateRanges(
  model: DiskModel,
  random: Random,
  count: number,
): Generator<[number, number]> {
  const { size, unitSize } = model;
  yield [0, 1];
  yield [0, Math.min(size, 512)];
  yield [size - 1, 1];
  yield [Math.max(0, size - 513), Math.min(size, 513)];
  for (let at = unitSize; at < size && at <= 8 * unitSize; at += unitSize) {
    yield [at - 1, 2];
    yield [at - 512, 1024];
    yield [at - 511, Math.min(1023, size - at + 511)];
  }
  for (let round = 0; round < count; round += 1) {
    const offset = random.below(size);
    yield [offset, 1 + random.below(Math.min(size - offset, 2 * unitSize + 1000))];
  }
}

function checkReads(
  t: Test,
  image: DiskImage,
  model: DiskModel,
  random: Random,
  count: number,
): void {
  const wrong: string[] = [];
  const guard = 0xa5;
  for (const [offset, wanted] of delicateRanges(model, random, count)) {
    const length = Math.min(wanted, model.size - offset);
    const [start, readable] = readableRange(image, offset, length);
    if (readable === 0) continue;
    const before = random.below(70);
    const target = Buffer.alloc(before + readable + 13, guard);
    image.readAt(target, before, start, readable);
    const expected = model.content.subarray(start, start + readable);
    const right = target.subarray(before, before + readable).equals(expected);
    const untouched =
      target.subarray(0, before).every((byte) => byte === guard) &&
      target.subarray(before + readable).every((byte) => byte === guard);
    if (!right || !untouched) wrong.push(`${start}+${readable}`);
  }
  t.strictSame(wrong, [], 'reads give exactly the bytes asked for');
}

/**
 * The longest part from the start of a range on that the contract allows to be read: no unallocated
 * byte in it.
 */
function readableRange(image: DiskImage, offset: number, length: number): [number, number] {
  const extent: Extent = { state: 'data', length: 0 };
  let done = 0;
  while (done < length) {
    image.extentAt(offset + done, length - done, extent);
    if (extent.state === 'unallocated') break;
    done += extent.length;
  }
  return [offset, done];
}

function checkWholeDisk(t: Test, image: DiskImage, model: DiskModel): void {
  const base = new ImageBase([image]);
  for (const step of [64 * 1024, 5000]) {
    const whole = Buffer.alloc(model.size, 0xee);
    for (let at = 0; at < model.size; at += step) {
      base.readAt(whole, at, at, Math.min(step, model.size - at));
    }
    t.equal(firstDifference(whole, model.content), -1, `whole disk in steps of ${step}`);
  }
}

function checkLocations(t: Test, image: DiskImage, model: DiskModel): void {
  if (image.locate === undefined) return;
  const wrong: number[] = [];
  const extent: Extent = { state: 'data', length: 0 };
  const bytes = Buffer.alloc(SECTOR_SIZE);
  for (let at = 0; at + SECTOR_SIZE <= model.size; at += SECTOR_SIZE * 3) {
    image.extentAt(at, SECTOR_SIZE, extent);
    const place = extent.state === 'data' ? image.locate(at) : undefined;
    if (place?.offset === undefined) continue;
    const fd = openSync(place.file, 'r');
    readSync(fd, bytes, 0, SECTOR_SIZE, place.offset);
    closeSync(fd);
    if (!bytes.equals(model.content.subarray(at, at + SECTOR_SIZE))) wrong.push(at);
  }
  t.strictSame(wrong, [], 'data lies where locate says');
}

/** Offset of the first byte that differs; -1 when none does. */
export function firstDifference(left: Buffer, right: Buffer): number {
  if (left.equals(right)) return -1;
  const length = Math.min(left.length, right.length);
  for (let at = 0; at < length; at += 1) if (left[at] !== right[at]) return at;
  return length;
}

/** @returns what is wrong with bytes that should be `content`. */
export function differs(found: Buffer, content: Buffer): string | undefined {
  if (found.length !== content.length) return `${found.length} bytes of ${content.length}`;
  const at = firstDifference(found, content);
  return at < 0 ? undefined : `other bytes at ${at}`;
}

function fileStates(files: readonly string[]): unknown[] {
  return files.map((path) => {
    const { size, mtimeMs, ctimeMs } = statSync(path);
    const hash = createHash('sha256').update(readFileSync(path)).digest('hex');
    return { path, size, mtimeMs, ctimeMs, hash };
  });
}

export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
