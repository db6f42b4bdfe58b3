/**
 * Random disks and chains in every subformat that we write, read back by our own reader, by
 * qemu-img and by 7-Zip. Each try follows from a seed of its own, which its loss names.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { differs } from '../conformance/image-suite.js';
import { WRITTEN_FORMATS, type WriterCapabilities } from '../conformance/written-formats.js';
import { createRandom, newSeed } from '../support/random.js';
import { randomChain } from '../support/random-disks.js';
import { sevenZip } from '../support/second-readers.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';
import { type WrittenLevel, writeTestChain } from '../support/written-image.js';
import { Tally, triesOr } from '../torture/tally.js';

/** Every subformat twice. */
const TRIES = triesOr(2 * WRITTEN_FORMATS.length);

/** Who reads what we wrote. */
interface Reader {
  readonly name: string;
  reads(kind: WriterCapabilities, levels: readonly WrittenLevel[]): boolean;
  /** @returns what is wrong. */
  judge(kind: WriterCapabilities, top: WrittenLevel, folder: string): string | undefined;
}

const ours: Reader = {
  name: 'layerdisk',
  reads: () => true,
  judge({ format }, { written, content }) {
    const base = new ImageBase(openChain(written.path, { format }));
    try {
      const whole = Buffer.alloc(base.virtualSize, 0xee);
      base.readAt(whole, 0, 0, whole.length);
      return differs(whole, content);
    } finally {
      base.close();
    }
  },
};

function qemu(t: Test): Reader[] {
  const command = qemuImg(t);
  if (command === undefined) return [];
  const run = (...args: string[]) => {
    const { stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    return `${stdout}${stderr}`.trim();
  };
  const compare: Reader = {
    name: 'qemu-img compare',
    reads: ({ qemu }, levels) => qemu !== undefined && (levels.length === 1 || qemu.chains),
    judge({ qemu }, { written, content }, folder) {
      const raw = join(folder, 'expected.raw');
      writeFileSync(raw, content);
      const said = run('compare', '-f', 'raw', '-F', qemu!.format, raw, written.path);
      // Of sizes that differ it only warns.
      return said === 'Images are identical.' ? undefined : said;
    },
  };
  const check: Reader = {
    name: 'qemu-img check',
    reads: ({ qemu }) => qemu?.check === true,
    judge({ qemu }, { written }) {
      const said = run('check', '-f', qemu!.format, written.path);
      return said.startsWith('No errors were found') ? undefined : said;
    },
  };
  return [compare, check];
}

function zip(t: Test): Reader[] {
  const read = sevenZip(t);
  if (read === undefined) return [];
  return [
    {
      name: '7-Zip',
      reads({ sevenZip: able }, levels) {
        if (able === undefined) return false;
        const sizes = new Set(levels.map(({ content }) => content.length));
        const isWhole = [...sizes].every((size) => size % (able.unit ?? 1) === 0);
        // Past the end of a parent that is smaller it finds no zeroes, but an end of data.
        return isWhole && (able.chains || levels.length === 1) && sizes.size === 1;
      },
      judge: (_, { written, content }) => differs(read(written.path), content),
    },
  ];
}

class Disks {
  readonly #folder: string;
  readonly #readers: readonly Reader[];
  /** How many chains each reader has read. */
  readonly read: Record<string, number> = {};

  constructor(t: Test) {
    this.#folder = tempFolder(t);
    this.#readers = [ours, ...qemu(t), ...zip(t)];
    for (const { name } of this.#readers) this.read[name] = 0;
  }

  /** @returns which disk it was, and what is wrong. */
  async try(seed: number): Promise<[what: string, problem: string | undefined]> {
    // By the seed, so that it alone names the try.
    const kind = WRITTEN_FORMATS[seed % WRITTEN_FORMATS.length]!;
    const models = randomChain(createRandom(seed), kind);
    const sizes = models.map(({ size }) => size).join(', ');
    const what = `LAYERDISK_SEED=${seed} LAYERDISK_TRIES=1, ${kind.format} ${kind.subformat}`;
    const folder = mkdtempSync(join(this.#folder, 'disk-'));
    try {
      const { baseSubformat = kind.subformat } = kind;
      const levels = await writeTestChain({ ...kind, baseSubformat }, folder, models);
      return [`${what} of ${sizes} bytes`, this.#judge(kind, levels, folder)];
    } catch (error) {
      return [`${what} of ${sizes} bytes`, String(error)];
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  /** The last of a chain shows what all of it holds. */
  #judge(
    kind: WriterCapabilities,
    levels: readonly WrittenLevel[],
    folder: string,
  ): string | undefined {
    const top = levels.at(-1)!;
    for (const reader of this.#readers.filter((each) => each.reads(kind, levels))) {
      const wrong = reader.judge(kind, top, folder);
      if (wrong !== undefined) return `${reader.name}: ${wrong}`;
      this.read[reader.name]! += 1;
    }
    return undefined;
  }
}

t.test('random disks in every subformat', { timeout: 60_000 + TRIES * 10_000 }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const disks = new Disks(t);
  const tally = new Tally(t);
  for (let index = 0; index < TRIES; index += 1) tally.judge(...(await disks.try(seed + index)));
  tally.print({ subformats: WRITTEN_FORMATS.length, ...disks.read });
});
