/**
 * The numbering writer as tests use it: 1, 2, 3, ... go to sectors of several files in order, so
 * any instant's state is known by one number.
 */
import { readFile } from 'node:fs/promises';
import type { Test } from 'tap';
import { sectorOf } from './numbered-sectors.mjs';
import { startProgram } from './working-program.js';

/** Of each file that the writer uses: enough for many blocks, few enough to be written often. */
export const SECTORS = 4096;

export interface Written {
  readonly last: number;
  /** What the slowest write took, for people. */
  readonly slowest: string;
}

/** Starts the writer and waits until it writes. */
export async function startWriter(
  t: Test,
  mode: 'direct' | 'buffered',
  files: readonly string[],
): Promise<{ readonly stop: () => Promise<Written> }> {
  const script = new URL('./numbering-writer.mjs', import.meta.url);
  const program = await startProgram(t, script, [String(SECTORS), mode, ...files]);
  const stop = async (): Promise<Written> => {
    const [slowest = '', last] = (await program.stop()).split('\n').slice(-3);
    return { last: Number(last), slowest };
  };
  return { stop };
}

/** The number in each sector of each disk; a torn sector fails the test. */
export async function readNumbers(t: Test, paths: readonly string[]): Promise<number[][]> {
  const disks: number[][] = [];
  for (const path of paths) {
    const bytes = await readFile(path);
    const numbers: number[] = [];
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const number = bytes.readUInt32LE(sector * 512);
      const whole = Buffer.alloc(512);
      for (let at = 0; at < 512; at += 4) whole.writeUInt32LE(number, at);
      if (!whole.equals(bytes.subarray(sector * 512, sector * 512 + 512))) {
        t.fail(`${path}: sector ${sector} is torn`);
      }
      numbers.push(number);
    }
    disks.push(numbers);
  }
  return disks;
}

/** Checks that the disks hold the state after some number, and answers that number. */
export function checkPrefix(t: Test, disks: readonly number[][], what: string): number {
  let last = 0;
  for (const numbers of disks) for (const number of numbers) last = Math.max(last, number);
  const expected = disks.map(() => Array<number>(SECTORS).fill(0));
  for (let number = 1; number <= last; number += 1) {
    const disk = expected[number % disks.length];
    if (disk !== undefined) disk[sectorOf(number, SECTORS)] = number;
  }
  const wrong: string[] = [];
  disks.forEach((numbers, disk) => {
    numbers.forEach((number, sector) => {
      const due = expected[disk]?.[sector];
      if (number !== due) {
        wrong.push(`disk ${disk}, sector ${sector}: ${number} instead of ${due}`);
      }
    });
  });
  const some = wrong.slice(0, 5);
  t.same(some, [], `${what} holds exactly the numbers up to ${last} (${wrong.length} do not)`);
  return last;
}
