/**
 * Counting for scripts/torture: each line of figures is a number of tries and of losses. A loss is
 * a failed assertion, too, so that it cannot go unseen wherever it happens.
 */
import type { Test } from 'tap';

/** Losses told one by one; more are only counted. */
const MOST_TOLD = 20;

export class Tally {
  readonly #t: Test;
  #tries = 0;
  #losses = 0;

  constructor(t: Test) {
    this.#t = t;
  }

  get tries(): number {
    return this.#tries;
  }

  get losses(): number {
    return this.#losses;
  }

  tried(count = 1): void {
    this.#tries += count;
  }

  /** @param what one line: which try, what is wrong. */
  lost(what: string): void {
    this.#losses += 1;
    if (this.#losses <= MOST_TOLD) this.#t.fail(what);
  }

  /** Counts a try, and a loss when `problem` says one. */
  judge(what: string, problem: string | undefined): void {
    this.tried();
    if (problem !== undefined) this.lost(`${what}: ${problem}`);
  }

  /** The line that scripts/torture reads. @param facts what else was measured. */
  print(facts: Readonly<Record<string, string | number>> = {}): void {
    const more = Object.entries(facts).map(([name, value]) => `, ${name} ${value}`);
    const { tries, losses } = this;
    this.#t.comment(`figure: ${tries} tries, ${losses} losses${more.join('')}`);
    if (losses === 0) this.#t.pass(`${tries} tries, nothing lost`);
  }
}

/** `tries` dealt out to so many parts, as evenly as whole numbers can be. */
export function dealt(tries: number, parts: number): number[] {
  const upTo = (part: number) => Math.floor((tries * part) / parts);
  return Array.from({ length: parts }, (_, part) => upTo(part + 1) - upTo(part));
}

/** How many tries somebody asked for, or what is enough for every day. */
export function triesOr(usual: number): number {
  const asked = process.env.LAYERDISK_TRIES;
  return asked === undefined ? usual : Number(asked);
}
