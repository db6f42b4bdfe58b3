/**
 * Counts the tests in a TAP stream: the innermost subtests, and whatever fails or is skipped
 * outside them.
 */
import { Parser } from 'tap-parser';

/**
 * One subtest (a test file at the top). `problems` are its own failed test points, not those of its
 * children.
 * @typedef {{ name: string, children: Group[], problems: Problem[], skips: string[], extra: string,
 *   closed: boolean, ok: boolean, timeMs: number | undefined }} Group
 * @typedef {{ name: string, diag: Record<string, unknown> | undefined }} Problem
 * @typedef {{ passed: number, failed: number, skipped: number }} Tally
 */

/** @returns {Group} */
function newGroup(name) {
  return {
    name,
    children: [],
    problems: [],
    skips: [],
    extra: '',
    closed: false,
    ok: false,
    timeMs: undefined,
  };
}

/** @param {Tally} into @param {Tally} other */
function addTally(into, other) {
  into.passed += other.passed;
  into.failed += other.failed;
  into.skipped += other.skipped;
}

/**
 * A group that holds groups counts as its children do, plus one failure if it failed by itself; one
 * that holds none is one test. What it skipped counts besides.
 * @param {Group} group @returns {Tally}
 */
export function tallyOf(group) {
  const tally = { passed: 0, failed: 0, skipped: group.skips.length };
  for (const child of group.children) addTally(tally, tallyOf(child));
  const failed = !group.closed || !group.ok;
  if (group.children.length === 0) {
    if (failed) tally.failed += 1;
    else if (group.skips.length === 0) tally.passed += 1;
  } else if (group.problems.length > 0 || (failed && tally.failed === 0)) {
    tally.failed += 1;
  }
  return tally;
}

/** Collects a TAP stream; hands out each test file as soon as the stream has told all about it. */
export class TapTally {
  #parser = new Parser();
  /** @type {Map<string, Group>} by file name */
  #files = new Map();
  #root = newGroup('the run');
  #planned = 0;
  #finished = false;

  /** @param {(file: Group) => void} onFile */
  constructor(onFile) {
    this.#watch(this.#parser, this.#root, (file) => {
      this.#files.set(file.name, file);
      onFile(file);
    });
    // What a test prints comes out here, whatever its depth.
    this.#parser.on('extra', (text) => {
      const file = this.#root.children.at(-1) ?? this.#root;
      file.extra += text.replace(/^ {4}/, '');
    });
    this.#parser.on('plan', (plan) => {
      this.#planned = plan.end;
    });
    this.#parser.on('complete', (results) => {
      this.#finished = true;
      this.#root.closed = true;
      this.#root.ok = results.ok;
    });
  }

  /** @param {string | Buffer} text */
  write(text) {
    this.#parser.write(text);
  }

  /**
   * Ends the stream.
   * @returns {{ tally: Tally, problems: string[] }} of the whole run; `problems` belong to no file
   */
  end() {
    this.#parser.end();
    const tally = { passed: 0, failed: 0, skipped: 0 };
    for (const file of this.#files.values()) addTally(tally, tallyOf(file));
    const problems = this.#timeouts();
    problems.push(...this.#lostFiles());
    tally.failed += problems.length;
    const complete = this.#finished && this.#root.ok && this.#files.size > 0;
    if (tally.failed === 0 && !complete) {
      problems.push('the run itself failed, or found no test');
      tally.failed += 1;
    }
    return { tally, problems };
  }

  /**
   * The runner reports a file that ran into its time-out as a failed test point of the run, besides
   * what the file itself may have said.
   */
  #timeouts() {
    const problems = [];
    for (const problem of this.#root.problems) {
      const file = problem.diag?.expired;
      const told = typeof file === 'string' ? this.#files.get(file) : undefined;
      if (told !== undefined && tallyOf(told).failed > 0) continue;
      if (typeof file === 'string') this.#files.set(file, newGroup(file));
      problems.push(typeof file === 'string' ? `${file}: ran into the time-out` : problem.name);
    }
    return problems;
  }

  /** Each time-out takes the place of another file's result in the runner's plan. */
  #lostFiles() {
    const lost = this.#planned - this.#files.size;
    if (lost <= 0) return [];
    return Array(lost).fill('a test file was planned, but the runner never reported on it');
  }

  /** @param {Parser} parser @param {Group} group @param {(child: Group) => void} onClosed */
  #watch(parser, group, onClosed) {
    parser.on('child', (childParser) => {
      const child = newGroup(childParser.name);
      group.children.push(child);
      this.#watch(childParser, child, () => {});
    });
    parser.on('assert', (result) => {
      const child = group.children.at(-1);
      const closes = result.closingTestPoint && child !== undefined && !child.closed;
      if (closes) closeGroup(child, result);
      else notePoint(group, result);
      // A skipped file comes without a subtest of its own.
      if (closes) onClosed(child);
      else if (group === this.#root && result.ok) onClosed(closedFile(result));
    });
  }
}

function closeGroup(group, result) {
  group.closed = true;
  group.ok = result.ok;
  group.timeMs = result.time ?? undefined;
  if (skipReason(result) !== undefined) group.skips.push(skipReason(result));
  else if (!result.ok) group.problems.push(...closingProblem(group, result));
}

/**
 * A group that failed without a failed point inside crashed, or ended early: its own point says
 * how.
 */
function closingProblem(group, result) {
  const inside = group.problems.length > 0 || group.children.some((child) => !child.ok);
  return inside ? [] : [{ name: 'ended abnormally', diag: result.diag ?? undefined }];
}

function notePoint(group, result) {
  const reason = skipReason(result);
  if (reason === '') group.skips.push(result.name);
  else if (reason !== undefined) group.skips.push(`${result.name}: ${reason}`);
  else if (!result.ok) group.problems.push({ name: result.name, diag: result.diag ?? undefined });
}

function closedFile(result) {
  const file = newGroup(result.name);
  closeGroup(file, result);
  return file;
}

/** Why a test point was skipped or is still to be done (maybe ''); undefined when it counts. */
function skipReason(result) {
  if (result.skip) return result.skip === true ? '' : result.skip;
  if (result.todo) return result.todo === true ? 'to be done' : `to be done: ${result.todo}`;
  return undefined;
}
