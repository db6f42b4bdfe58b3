/** Entry of scripts/bench: reads the options, runs the suites, writes the report. */
import { mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { drawChart } from './chart.mjs';
import { FORMAT_NAMES } from './convert.mjs';
import { printGoals } from './goals.mjs';
import { interrupted } from './interrupt.mjs';
import { SUITES } from './suites.mjs';
import { Workbench } from './targets.mjs';

const ROUNDS = 5;
const USAGE = `scripts/bench [--suite NAME]... [--rounds N] [--seconds S] [--size MIB]
              [--formats NAME,...] [--folder DIR] [--json FILE] [--svg FILE]

  --suite    ${Object.keys(SUITES).join(', ')}; default: all
  --rounds   how often each job runs on each target, in turn; default ${ROUNDS}, for convert as
             often as there is time in five minutes, but at least 3 times
  --seconds  how long a run takes; default 1
  --size     of the disks, MiB; default 256
  --formats  for convert: ${FORMAT_NAMES.slice(0, 6).join(', ')},
             ${FORMAT_NAMES.slice(6, 9).join(', ')},
             ${FORMAT_NAMES.slice(9).join(', ')}; default: the first seven
  --folder   where stores and images lie; default /dev/shm where it has room, so that the host's
             disk is out of the picture; name a folder on a real disk to have it in
  --json     writes all figures
  --svg      draws the ratios
`;
/** Of free space, for /dev/shm to be taken. */
const ROOM = 6 * 1024 ** 3;

async function main() {
  const { values } = parseArgs({
    options: {
      suite: { type: 'string', multiple: true, default: Object.keys(SUITES) },
      rounds: { type: 'string' },
      formats: { type: 'string' },
      seconds: { type: 'string', default: '1' },
      size: { type: 'string', default: '256' },
      folder: { type: 'string' },
      json: { type: 'string' },
      svg: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  const options = {
    rounds: values.rounds === undefined ? ROUNDS : positive(values.rounds, '--rounds'),
    /** Only where the caller said how often. */
    statedRounds: values.rounds === undefined ? undefined : Number(values.rounds),
    formats: values.formats === undefined ? undefined : knownFormats(values.formats),
    seconds: positive(values.seconds, '--seconds'),
    sizeMib: positive(values.size, '--size'),
    threads: Math.max(2, availableParallelism()),
  };
  const unknown = values.suite.find((name) => SUITES[name] === undefined);
  if (unknown !== undefined) throw new Error(`--suite ${unknown} is none of those in --help`);
  const groups = [];
  for (const name of values.suite) {
    const group = await runSuite(name, await baseFolder(values.folder), options);
    printGoals(group);
    groups.push(group);
  }
  const report = { when: new Date().toISOString(), node: process.version, options, groups };
  if (values.json) await writeFile(values.json, `${JSON.stringify(report, null, 2)}\n`);
  if (values.svg) await writeFile(values.svg, drawChart(groups.filter(({ rows }) => rows)));
}

/** Each suite has a workbench of its own, cleared before the next begins. */
async function runSuite(name, base, options) {
  const { title, run } = SUITES[name];
  console.log(`\n${title}`);
  const folder = await mkdtemp(join(base, 'layerdisk-bench-'));
  const bench = new Workbench(folder, options);
  try {
    return { suite: name, title, ...(await run(bench, options)) };
  } finally {
    await bench.close();
    await rm(folder, { recursive: true, force: true });
  }
}

async function baseFolder(wanted) {
  if (wanted !== undefined) return wanted;
  const { bavail, bsize } = await statfs('/dev/shm').catch(() => ({ bavail: 0, bsize: 0 }));
  return bavail * bsize >= ROOM ? '/dev/shm' : tmpdir();
}

function knownFormats(text) {
  const names = text.split(',');
  const unknown = names.find((name) => !FORMAT_NAMES.includes(name));
  if (unknown !== undefined) throw new Error(`--formats ${unknown} is none of those in --help`);
  return names;
}

function positive(text, option) {
  const number = Number(text);
  if (!(number > 0)) throw new Error(`${option} ${text} is no number above 0`);
  return number;
}

try {
  await main();
} catch (error) {
  console.error(`bench: ${interrupted.aborted ? 'interrupted' : error.message}`);
  process.exitCode ??= 1;
}
