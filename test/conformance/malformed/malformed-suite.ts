/**
 * Images with one thing wrong, each anew from a seed: refused with a message that names the file,
 * or opened, and then every sector is right or fails with EIO.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Test } from 'tap';
import { DiskError } from '../../../src/common/errors.js';
import { MiB, SECTOR_SIZE } from '../../../src/common/units.js';
import type { Base } from '../../../src/engine/base.js';
import { describeBase, openBase } from '../../../src/formats/base.js';
import { createRandom, newSeed, type Random } from '../../support/random.js';
import { tempFolder } from '../../support/temp-folder.js';
import { Tally, triesOr } from '../../torture/tally.js';
import { filesOpenedBesides, openRegularFiles } from '../opened-files.js';
import { ANY_KINDS } from './any-kinds.js';
import type { Kind, Specimen } from './kind.js';
import { QCOW2_KINDS } from './qcow2-kinds.js';
import { QCOW2_REFERENCES } from './qcow2-references.js';
import { VDI_KINDS } from './vdi-kinds.js';
import { VHD_KINDS } from './vhd-kinds.js';
import { VHDX_CHILDREN } from './vhdx-children.js';
import { VHDX_KINDS } from './vhdx-kinds.js';
import { VMDK_DESCRIPTORS } from './vmdk-descriptors.js';
import { VMDK_ESXI } from './vmdk-esxi.js';
import { VMDK_KINDS } from './vmdk-kinds.js';

const FORMATS: Readonly<Record<string, readonly Kind[]>> = {
  any: ANY_KINDS,
  qcow2: [...QCOW2_KINDS, ...QCOW2_REFERENCES],
  vdi: VDI_KINDS,
  vhd: VHD_KINDS,
  vhdx: [...VHDX_KINDS, ...VHDX_CHILDREN],
  vmdk: [...VMDK_KINDS, ...VMDK_DESCRIPTORS, ...VMDK_ESXI],
};

const KINDS = Object.entries(FORMATS).flatMap(([format, kinds]) =>
  kinds.map((kind) => ({ ...kind, name: `${format}: ${kind.name}` })),
);

const OPEN_LIMIT_MS = 5000;
const MEMORY_LIMIT = 256 * MiB;

/** One of each kind, or so many images as LAYERDISK_TRIES says. */
export async function malformedSuite(t: Test): Promise<void> {
  const random = createRandom(newSeed());
  t.comment(`LAYERDISK_SEED=${random.seed}`);
  const root = tempFolder(t);
  const tally = new Tally(t);
  const outcomes = { refused: 0, opened: 0 };
  let slowest = 0;
  for (let nth = 0; nth < triesOr(KINDS.length); nth += 1) {
    const kind = KINDS[nth % KINDS.length]!;
    const started = performance.now();
    // What a kind draws must not depend on the kinds before it.
    const problem = judge(kind, join(root, String(nth)), createRandom(random.seed + nth), outcomes);
    tally.judge(`${kind.name} (image ${nth})`, problem);
    slowest = Math.max(slowest, performance.now() - started);
    // Descriptors and memory that were given up go in a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(outcomes.refused > 0 && outcomes.opened > 0, 'both came');
  tally.print({ of: KINDS.length, ...outcomes, 'slowest ms': Math.round(slowest) });
}

/** @returns what is wrong with how the image was taken. */
function judge(
  kind: Kind,
  folder: string,
  random: Random,
  outcomes: { refused: number; opened: number },
): string | undefined {
  const scene = { folder: join(folder, 'inside'), outside: join(folder, 'outside'), random };
  for (const each of [scene.folder, scene.outside]) mkdirSync(each, { recursive: true });
  try {
    const specimen = kind.make(scene);
    const opened = openWithin(specimen.path);
    if (typeof opened === 'string') return opened;
    outcomes[opened instanceof DiskError ? 'refused' : 'opened'] += 1;
    if (opened instanceof DiskError) return judgeRefusal(kind, specimen, opened);
    try {
      return judgeContent(kind, specimen, opened);
    } finally {
      opened.close();
    }
  } catch (error) {
    return error instanceof Error ? error.stack : String(error);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Opens it as an import does. @returns the problem, where time, memory or files are beyond. */
function openWithin(path: string): Base | DiskError | string {
  const before = openRegularFiles();
  const memory = process.memoryUsage().rss;
  const started = performance.now();
  let opened: Base | DiskError;
  try {
    opened = openBase(describeBase(path).spec);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    opened = error;
  }
  const problem = beyond({
    took: performance.now() - started,
    memory: process.memoryUsage().rss - memory,
    outside: filesOpenedBesides(before, opened instanceof DiskError ? undefined : dirname(path)),
  });
  if (problem !== undefined && !(opened instanceof DiskError)) opened.close();
  return problem ?? opened;
}

function beyond(cost: { took: number; memory: number; outside: string[] }): string | undefined {
  if (cost.outside.length > 0) return `left open: ${cost.outside}`;
  if (cost.took > OPEN_LIMIT_MS) return `opening took ${cost.took} ms`;
  return cost.memory > MEMORY_LIMIT ? `opening took ${cost.memory} bytes of memory` : undefined;
}

function judgeRefusal(kind: Kind, { path }: Specimen, refusal: DiskError): string | undefined {
  const { message } = refusal;
  if (kind.expect === 'ok' || kind.expect === 'io-error') return `refused: ${message}`;
  if (message.includes('\n')) return `two lines: ${message}`;
  return message.includes(dirname(path)) ? undefined : `names no file: ${message}`;
}

function judgeContent(kind: Kind, { content }: Specimen, base: Base): string | undefined {
  if (kind.expect === 'refuse') return 'opened';
  if (kind.expect !== 'careful' && base.virtualSize !== content.length) {
    return `${base.virtualSize} bytes instead of ${content.length}`;
  }
  const bytes = Buffer.alloc(SECTOR_SIZE);
  let failed = 0;
  for (let at = 0; at < Math.min(base.virtualSize, content.length); at += SECTOR_SIZE) {
    try {
      base.readAt(bytes, 0, at, SECTOR_SIZE);
      if (!bytes.equals(content.subarray(at, at + SECTOR_SIZE))) return `wrong bytes at ${at}`;
    } catch (error) {
      if (!(error instanceof DiskError) || error.errno !== 'EIO') throw error;
      failed += 1;
    }
  }
  if (kind.expect === 'io-error' && failed === 0) return 'nothing failed';
  return kind.expect === 'ok' && failed > 0 ? `${failed} sectors failed` : undefined;
}
