/** What the driver of writers hands over: random disks, writers of every granularity. */
import t from 'tap';
import { BLOCK_SIZE, MiB, SECTOR_SIZE } from '../../src/common/units.js';
import type { ExtentState } from '../../src/engine/disk-image.js';
import {
  type ImageWriter,
  type ImageWriting,
  WRITE_CHUNK,
} from '../../src/formats/image-writer.js';
import { writeImage } from '../../src/formats/write-image.js';
import { OutputFiles } from '../../src/storage/output-files.js';
import { type DiskModel, mergedContent, stampedModel, stateAt } from '../support/disk-model.js';
import { modelSource } from '../support/image-sources.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';

const ROUNDS = 60;

/** Keeps what it is given, and what was wrong with the calls. */
class RecordingWriter implements ImageWriter {
  readonly granularity: number;
  readonly wrong: string[] = [];
  readonly content: Buffer;
  /** One a sector. */
  readonly states: ExtentState[];
  #end = 0;
  finished = false;

  constructor(size: number, granularity: number) {
    this.granularity = granularity;
    this.content = Buffer.alloc(size);
    this.states = new Array<ExtentState>(Math.ceil(size / SECTOR_SIZE)).fill('unallocated');
  }

  write(offset: number, source: Buffer, sourceOffset: number, length: number) {
    this.#note('data', offset, length);
    source.copy(this.content, offset, sourceOffset, sourceOffset + length);
    // Some writers take their time, with the buffer in their hands.
    if (offset % (2 * MiB) !== 0) return undefined;
    return new Promise<void>((resolve) => {
      setImmediate(() => {
        source.copy(this.content, offset, sourceOffset, sourceOffset + length);
        resolve();
      });
    });
  }

  zero(offset: number, length: number): void {
    this.#note('zero', offset, length);
  }

  finish(): void {
    this.finished = true;
  }

  #note(state: ExtentState, offset: number, length: number): void {
    const end = offset + length;
    const aligned =
      offset % this.granularity === 0 &&
      (end % this.granularity === 0 || end === this.content.length);
    const inChunk = Math.floor(offset / WRITE_CHUNK) === Math.floor((end - 1) / WRITE_CHUNK);
    if (length < 1 || !aligned || !inChunk || offset < this.#end || this.finished) {
      this.wrong.push(`${state} ${offset}+${length}`);
    }
    this.#end = end;
    this.states.fill(state, offset / SECTOR_SIZE, end / SECTOR_SIZE);
  }
}

function randomModel(random: Random, size: number): DiskModel {
  const unitSize = random.pick([SECTOR_SIZE, BLOCK_SIZE, 20 * SECTOR_SIZE, 256 * 1024, 3 * MiB]);
  const letters = Array.from({ length: 1 + random.below(40) }, () => random.pick(['d', 'z', 'u']));
  const pattern = letters.map((letter) => letter.repeat(1 + random.below(9))).join('');
  return stampedModel({ size, unitSize, pattern, salt: random.below(1000) });
}

/** What must have been handed over for the unit at `from`. */
function dueState(model: DiskModel, merged: Buffer, from: number, to: number): ExtentState | 'any' {
  let absent = true;
  for (let at = from; at < to; at += SECTOR_SIZE) {
    if (stateAt(model, at) !== 'unallocated') absent = false;
  }
  if (absent) return 'unallocated';
  return merged.subarray(from, to).some((byte) => byte !== 0) ? 'data' : 'any';
}

async function checkRound(folder: string, random: Random, round: number): Promise<string[]> {
  const size = random.pick([SECTOR_SIZE, 3 * MiB, 2 * MiB + 1536, 5 * MiB - SECTOR_SIZE]);
  const granularity = 2 ** (9 + random.below(12));
  const differencing = random.below(2) === 0;
  const below = differencing ? [randomModel(random, size)] : [];
  const model = randomModel(random, size);
  const merged = mergedContent([model, ...below]);
  const writer = new RecordingWriter(size, granularity);
  const writing: ImageWriting = {
    subformats: ['test'],
    differencing: ['test'],
    create: (outputs) => {
      outputs.create(outputs.path);
      return writer;
    },
  };
  const outputs = new OutputFiles(`${folder}/${round}`);
  // The driver only asks whether there is one.
  const parent = differencing ? { parent: { image: undefined as never, name: 'parent' } } : {};
  const options = { virtualSize: size, subformat: 'test', ...parent };
  await writeImage(modelSource([model, ...below]), outputs, writing, options);
  const wrong = [...writer.wrong];
  for (let at = 0; at < size; at += granularity) {
    const end = Math.min(at + granularity, size);
    const due = dueState(model, merged, at, end);
    const states = new Set(writer.states.slice(at / SECTOR_SIZE, Math.ceil(end / SECTOR_SIZE)));
    const [state] = states;
    const said = differencing || due === 'data' ? due : 'any';
    if (states.size !== 1) wrong.push(`unit at ${at} is torn`);
    if (said !== 'any' && state !== said) wrong.push(`unit at ${at}: ${state}, not ${said}`);
    if (differencing && due === 'any' && state === 'unallocated') wrong.push(`${at} is not said`);
    const shown = writer.content.subarray(at, end);
    const kept = state === 'unallocated' && differencing;
    if (!kept && !shown.equals(merged.subarray(at, end))) wrong.push(`unit at ${at}: content`);
  }
  const about = `size ${size}, granularity ${granularity}, differencing ${differencing}`;
  return wrong.slice(0, 3).map((text) => `round ${round}, ${about}: ${text}`);
}

t.test('random disks', async (t) => {
  const random = createRandom(newSeed());
  const folder = tempFolder(t);
  const wrong: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    wrong.push(...(await checkRound(folder, random, round)));
  }
  t.strictSame(wrong, [], `seed ${random.seed}`);
});

t.test('long runs are not asked for piece by piece', async (t) => {
  const size = 64 * MiB * MiB;
  let asked = 0;
  const source = {
    virtualSize: size,
    extentAt(_offset: number, length: number, out: { state: ExtentState; length: number }) {
      asked += 1;
      out.state = 'unallocated';
      out.length = length;
    },
    readAt: () => t.fail('there is nothing to read'),
  };
  const writer = new RecordingWriter(SECTOR_SIZE, BLOCK_SIZE);
  const writing = { subformats: ['test'], differencing: [], create: () => writer };
  const outputs = new OutputFiles(`${tempFolder(t)}/vast`);
  await writeImage(source, outputs, writing, { virtualSize: size, subformat: 'test' });
  t.ok(writer.finished);
  t.ok(asked < 100, `${asked} questions for 64 TiB of nothing`);
});
