/**
 * Random chains of every format that has them, ours and crafted ones: each image of a chain shows
 * what its model says, to our reader and as the raw file of a VM that was imported from it. Each
 * try follows from a seed of its own, which its loss names.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { FormatName } from '../../src/formats/image-format.js';
import { openChain } from '../../src/formats/open-chain.js';
import { differs } from '../conformance/image-suite.js';
import { WRITTEN_FORMATS } from '../conformance/written-formats.js';
import { readChain } from '../support/chain-reader.js';
import { CRAFTED_FORMATS, type CraftedLevel, craftChain } from '../support/crafted-chains.js';
import { startDaemon, type TestDaemon } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { randomChain } from '../support/random-disks.js';
import { ask } from '../support/takeover.js';
import { tempFolder } from '../support/temp-folder.js';
import { writeTestChain } from '../support/written-image.js';
import { Tally, triesOr } from '../torture/tally.js';

interface Kind {
  readonly name: string;
  readonly format: FormatName;
  make(random: Random, folder: string): CraftedLevel[] | Promise<CraftedLevel[]>;
}

const KINDS: readonly Kind[] = [
  ...CRAFTED_FORMATS.map((format) => ({
    name: `crafted ${format}`,
    format,
    make: (random: Random, folder: string) => craftChain(random, format, folder),
  })),
  ...WRITTEN_FORMATS.filter(({ differencing }) => differencing).map((kind) => ({
    name: `${kind.format} ${kind.subformat}`,
    format: kind.format,
    async make(random: Random, folder: string) {
      const what = { ...kind, baseSubformat: kind.baseSubformat ?? kind.subformat };
      const levels = await writeTestChain(what, folder, randomChain(random, kind));
      return levels.map(({ written: { path }, content }) => ({ path, content }));
    },
  })),
];

/** Every kind once. */
const TRIES = triesOr(KINDS.length);
const VM = 'chain';

/** @returns what is wrong with an image of a chain. */
function readHere({ path, content }: CraftedLevel, format: FormatName): string | undefined {
  const images = openChain(path, { format });
  try {
    const { virtualSize } = images[0]!;
    return differs(readChain(images, 0, virtualSize), content);
  } finally {
    for (const image of images) image.close();
  }
}

async function readMounted(
  daemon: TestDaemon,
  { path, content }: CraftedLevel,
  format: FormatName,
): Promise<string | undefined> {
  await ask(daemon, 'import', { vm: VM, files: [path], format });
  try {
    return differs(await readFile(daemon.rawFile(VM)), content);
  } finally {
    await ask(daemon, 'delete', { vm: VM });
  }
}

/** @returns which chain it was, and what is wrong with it. */
async function tryChain(
  folder: string,
  daemon: TestDaemon | undefined,
  seed: number,
): Promise<[what: string, problem: string | undefined]> {
  // By the seed, so that it alone names the try.
  const kind = KINDS[seed % KINDS.length]!;
  const what = `LAYERDISK_SEED=${seed} LAYERDISK_TRIES=1, ${kind.name}`;
  const own = mkdtempSync(join(folder, 'chain-'));
  try {
    const levels = await kind.make(createRandom(seed), own);
    for (const [number, level] of levels.entries()) {
      const wrong = readHere(level, kind.format);
      if (wrong !== undefined) return [what, `level ${number}: ${wrong}`];
    }
    const wrong = daemon && (await readMounted(daemon, levels.at(-1)!, kind.format));
    return [what, wrong && `through the mount: ${wrong}`];
  } catch (error) {
    return [what, String(error)];
  } finally {
    rmSync(own, { recursive: true });
  }
}

t.test('random chains of every format', { timeout: 60_000 + TRIES * 10_000 }, async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const unable = cannotServe();
  if (unable) t.comment(`not through the mount: ${unable}`);
  const daemon = unable ? undefined : await startDaemon(t);
  const folder = tempFolder(t);
  const tally = new Tally(t);
  for (let index = 0; index < TRIES; index += 1) {
    tally.judge(...(await tryChain(folder, daemon, seed + index)));
  }
  tally.print({ kinds: KINDS.length, 'through the mount': unable ? 0 : TRIES });
});
