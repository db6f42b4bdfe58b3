/** Entry of scripts/torture: reads the options, runs the lines one after the other, sums up. */
import { parseArgs } from 'node:util';
import { LINES } from './lines.mjs';
import { runLine } from './run-line.mjs';

const USAGE = `scripts/torture [--seed S] [--only R5,R6] [--scale F] [--verbose]

  --seed     what everything random follows from; default: from the clock, and printed
  --only     lines to run, by their numbers; default: all
  --scale    so many times the usual tries; 0.01 is a hundredth
  --verbose  everything that the tests print, too

Exit status: 0, 1 when anything was lost or a line could not be run, 2 for wrong usage.

${LINES.map(({ id, tries, title }) => `  ${id.padEnd(5)} ${title} (${tries})`).join('\n')}
`;

async function main() {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      only: { type: 'string' },
      scale: { type: 'string', default: '1' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const seed = number(values.seed ?? String(Date.now() % 0x7fffffff), '--seed');
  const scale = number(values.scale, '--scale');
  const lines = chosen(values.only);
  console.log(`seed ${seed}`);
  let failed = 0;
  for (const line of lines) {
    const tries = Math.max(1, Math.round(line.tries * scale));
    const result = await runLine(line, { seed, tries, verbose: values.verbose });
    console.log(describe(line, result));
    for (const problem of result.problems) console.log(`      ${problem}`);
    if (!result.ok) {
      failed += 1;
      console.log(`      again: scripts/torture --seed ${seed} --scale ${scale} --only ${line.id}`);
    }
  }
  console.log(failed === 0 ? 'nothing was lost' : `${failed} of ${lines.length} lines failed`);
  return failed === 0 ? 0 : 1;
}

function chosen(only) {
  if (only === undefined) return LINES;
  return only.split(',').map((id) => {
    const line = LINES.find((each) => each.id.toLowerCase() === id.trim().toLowerCase());
    if (line === undefined) throw new Error(`--only ${id}: none of those in --help`);
    return line;
  });
}

function describe({ id, title }, { tries, losses, seconds, facts }) {
  const figures = `${tries} tries, ${losses} losses, ${seconds} s`;
  return `${id.padEnd(5)} ${title}: ${figures}${facts === '' ? '' : ` (${facts})`}`;
}

function number(text, option) {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new Error(`${option} ${text}: must be a number`);
  }
  return value;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`torture: ${error.message}\n`);
  process.exitCode = 2;
}
