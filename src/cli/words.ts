/** A command line as words, for where yargs does not say enough: completion, hints, near misses. */
import type { ChosenPlaces } from '../common/places.js';
import type { Command } from './command.js';

/** Global options whose value is the next word. */
const VALUE_OPTIONS = ['--store', '--socket', '--progress'];

/** Words that differ by more changes than this are no slip of the fingers. */
const MAX_SLIPS = 2;

export interface SortedWords {
  /** Commands and positionals, and values of options that are not global. */
  readonly plain: readonly string[];
  /** `--store` and `--socket`. */
  readonly places: ChosenPlaces;
}

/** Tells the words of a command line, without the program, apart. */
export function sortWords(words: readonly string[]): SortedWords {
  const plain: string[] = [];
  const places: { store?: string; socket?: string } = {};
  let before = '';
  for (const word of words) {
    if (before === '--store') places.store = word;
    if (before === '--socket') places.socket = word;
    const [, name, value] = /^--(store|socket)=(.+)$/s.exec(word) ?? [];
    if (name === 'store' || name === 'socket') places[name] = value ?? '';
    if (!VALUE_OPTIONS.includes(before) && !word.startsWith('-')) plain.push(word);
    before = word;
  }
  return { plain, places };
}

/** Whether an option that takes no value is among the words of a command line. */
export function isSet(words: readonly string[], option: string): boolean {
  return words.includes(option) || words.includes(`${option}=true`);
}

/** What the first words of a command line name. */
export interface NamedCommand {
  /** The words that name a command or a group: `snapshot`, `take`. */
  readonly path: readonly string[];
  /** The word that should name a command of `choices` and does not. */
  readonly unknown?: string;
  /** What may follow: empty when the command is complete. */
  readonly choices: readonly string[];
  /** The last one of `path`, where it is loaded. */
  readonly command?: Command | undefined;
}

/** @param top names of the commands at the top, of which `loaded` are known in full */
export function nameCommand(
  top: readonly string[],
  loaded: readonly Command[],
  plain: readonly string[],
): NamedCommand {
  const path: string[] = [];
  let choices = top;
  let commands = loaded;
  let command: Command | undefined;
  for (const word of plain) {
    if (choices.length === 0) break;
    if (!choices.includes(word)) return { path, choices, unknown: word };
    path.push(word);
    command = commands.find(({ name }) => name === word);
    commands = command?.members ?? [];
    choices = commands.map(({ name }) => name);
  }
  return { path, choices, command };
}

/** The name that was probably meant; undefined when none is near. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestSlips = Math.min(MAX_SLIPS, word.length - 1) + 1;
  for (const name of names) {
    const slips = slipsBetween(word, name);
    if (slips < bestSlips) {
      best = name;
      bestSlips = slips;
    }
  }
  return best;
}

/** Characters to insert, delete or replace to make one word the other (Levenshtein's distance). */
function slipsBetween(one: string, other: string): number {
  let above = Array.from({ length: other.length + 1 }, (_, column) => column);
  for (let row = 1; row <= one.length; row++) {
    const line = [row];
    for (let column = 1; column <= other.length; column++) {
      const same = one[row - 1] === other[column - 1] ? 0 : 1;
      const replaced = above[column - 1]! + same;
      line.push(Math.min(replaced, above[column]! + 1, line[column - 1]! + 1));
    }
    above = line;
  }
  return above[other.length]!;
}
