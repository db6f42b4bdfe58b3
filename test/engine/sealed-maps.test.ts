/** Volumes on one chain share what is mapped below their heads. */
import t from 'tap';
import { BLOCK_SIZE } from '../../src/common/units.js';
import type { DeltaId } from '../../src/engine/delta-id.js';
import { ScratchEngine } from '../support/engine.js';
import { createRandom } from '../support/random.js';

const BLOCKS = 64 * 1024;
const KiB = 1024;

async function newHead(scratch: ScratchEngine, below?: DeltaId): Promise<DeltaId> {
  return await scratch.engine.deltas.create({
    below: below === undefined ? { kind: 'none' } : { kind: 'delta', id: below },
    virtualSize: BLOCKS * BLOCK_SIZE,
    allocation: 'dynamic',
  });
}

/** A block whose first word says where it is and who wrote it. */
function stamped(block: number, writer: number): Buffer {
  const bytes = Buffer.alloc(BLOCK_SIZE);
  bytes.writeUInt32LE(block, 0);
  bytes.writeUInt32LE(writer, 4);
  return bytes;
}

class Disk {
  readonly #scratch: ScratchEngine;
  readonly #handle: number;
  readonly #words = Buffer.alloc(8);

  private constructor(scratch: ScratchEngine, handle: number) {
    this.#scratch = scratch;
    this.#handle = handle;
  }

  static async open(scratch: ScratchEngine, top: DeltaId, writable = true): Promise<Disk> {
    const { handle } = await scratch.engine.volumes.acquire(top, { writable });
    return new Disk(scratch, handle);
  }

  write(block: number, writer: number): void {
    const volume = this.#scratch.volumeOf(this.#handle);
    volume.write(stamped(block, writer), 0, block * BLOCK_SIZE, BLOCK_SIZE);
  }

  /** Who wrote a block, 0 for nobody; -1 when it is another block. */
  writerOf(block: number): number {
    this.#scratch.volumeOf(this.#handle).read(this.#words, 0, block * BLOCK_SIZE, 8);
    const writer = this.#words.readUInt32LE(4);
    if (writer === 0) return 0;
    return this.#words.readUInt32LE(0) === block ? writer : -1;
  }

  close(): void {
    this.#scratch.engine.volumes.release({ handle: this.#handle });
  }
}

t.test('clones share the map of what they stand on, and nothing else', async (t) => {
  const scratch = new ScratchEngine();
  t.teardown(() => scratch.close());
  const { engine } = scratch;
  const random = createRandom(7);
  const base = await newHead(scratch);
  const writers = new Map<number, number>();
  const first = await Disk.open(scratch, base);
  for (let count = 0; count < 5000; count += 1) {
    const block = random.below(BLOCKS);
    first.write(block, 1);
    writers.set(block, 1);
  }
  const successor = await newHead(scratch, base);
  await engine.volumes.switchHeads([{ from: base, to: successor }], () => {});
  first.write(0, 99);

  const heads: DeltaId[] = [];
  for (let clone = 0; clone < 20; clone += 1) heads.push(await newHead(scratch, base));
  const clones: Disk[] = [];
  const sizes: number[] = [];
  for (const head of heads) {
    clones.push(await Disk.open(scratch, head));
    sizes.push(engine.indexBytes);
  }
  const each = (sizes.at(-1)! - sizes[0]!) / (heads.length - 1);
  t.ok(each <= 20 * KiB, `a further clone takes ${each} bytes of index`);

  for (const [index, clone] of clones.entries()) clone.write(index * 2000, 100 + index);
  for (const [index, clone] of clones.entries()) {
    const wrong = [...writers]
      .filter(([block]) => block !== index * 2000)
      .filter(([block, writer]) => clone.writerOf(block) !== writer);
    t.same(wrong, [], `clone ${index} shows what it was made of`);
    t.equal(clone.writerOf(index * 2000), 100 + index);
  }
  t.equal(first.writerOf(0), 99);
  const view = await Disk.open(scratch, base, false);
  t.equal(view.writerOf(0), writers.get(0) ?? 0, 'the snapshot stays as it was');

  for (const disk of [first, view, ...clones.slice(1)]) disk.close();
  for (const head of [successor, base, ...heads.slice(1)]) {
    engine.volumes.closeIdle(engine.volumes.describe(head)!);
  }
  t.equal(clones[0]!.writerOf([...writers.keys()].at(-1)!), 1, 'the last one still has it');
  clones[0]!.close();
  await scratch.reopen();
  t.same(scratch.errors, []);
});
