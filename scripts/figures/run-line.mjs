/**
 * Runs one line of scripts/torture: a test file, told by its environment how often to try and from
 * which seed. It prints `# figure: N tries, M losses, ...` as often as it likes; the numbers are
 * added up. A file that fails without a loss of its own counts as one, and one that tries nothing
 * fails, with what it skipped and why.
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const FIGURE = /# figure: (\d+) tries, (\d+) losses(?:, (.*))?$/;
/** Of one file; a line that hangs must end some day. */
const LIMIT_SECONDS = 4 * 3600;
const MOST_PROBLEMS = 20;

/**
 * @param {import('./lines.mjs').Line} line
 * @param {{ seed: number, tries: number, verbose: boolean }} how
 */
export async function runLine({ file, env = {} }, { seed, tries, verbose }) {
  const begin = performance.now();
  const sum = { tries: 0, losses: 0, facts: [], problems: [] };
  const skipped = [];
  const args = ['--reporter=tap', '--jobs=1', `--timeout=${LIMIT_SECONDS}`, file];
  const child = spawn('node_modules/.bin/tap', args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LAYERDISK_SEED: `${seed}`, LAYERDISK_TRIES: `${tries}`, ...env },
  });
  const note = (text) => {
    if (verbose) process.stdout.write(`${text}\n`);
    const found = FIGURE.exec(text);
    if (found !== null) {
      sum.tries += Number(found[1]);
      sum.losses += Number(found[2]);
      if (found[3] !== undefined) sum.facts.push(found[3]);
    } else if (/^\s*not ok /.test(text) && sum.problems.length < MOST_PROBLEMS) {
      sum.problems.push(text.trim());
    } else if (/^\s*ok .* # SKIP/.test(text)) {
      skipped.push(text.trim());
    }
  };
  createInterface(child.stdout).on('line', note);
  createInterface(child.stderr).on('line', note);
  const status = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  const seconds = Math.round((performance.now() - begin) / 1000);
  const losses = status !== 0 && sum.losses === 0 ? 1 : sum.losses;
  if (status === 0 && sum.tries === 0) sum.problems.push(`${file} tried nothing`, ...skipped);
  return {
    ...{ tries: sum.tries, losses, seconds, facts: sum.facts.join('; ') },
    ...{ problems: sum.problems, ok: losses === 0 && sum.tries > 0 },
  };
}
