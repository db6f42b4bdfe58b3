/**
 * The suite `convert`: exports and imports with a copy, against qemu-img convert on the same image.
 * Both are whole commands. Ours end with the file durable; qemu-img leaves that to its caller, so
 * its time is that of the command and of `sync FILE` behind it: that is what the goals are about.
 * How it stands against qemu-img alone, whose file a power cut may take, is shown beside it. The
 * time that passes is others' too on a busy machine, so the time on a processor is compared
 * as well: for us that of command and daemon together.
 */
import { execFile, spawn } from 'node:child_process';
import { open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { command, MiB } from './targets.mjs';
import { median } from './tournament.mjs';

/** Our format and subformat, and what qemu-img calls them. */
const FORMATS = [
  { name: 'raw', ours: ['raw', 'sparse'], qemu: ['raw'], goal: 1 },
  { name: 'qcow2', ours: ['qcow2', 'plain'], qemu: ['qcow2'], goal: 1 },
  { name: 'vdi', ours: ['vdi', 'dynamic'], qemu: ['vdi'] },
  { name: 'vhd', ours: ['vhd', 'dynamic'], qemu: ['vpc'] },
  { name: 'vhdx', ours: ['vhdx', 'dynamic'], qemu: ['vhdx'] },
  vmdk('monolithicSparse'),
  vmdk('streamOptimized'),
];
/** Those that take much longer, or are like another one; measured when they are named. */
const MORE = [
  { name: 'qcow2-compressed', ours: ['qcow2', 'compressed'], qemu: ['qcow2', '-c'] },
  ...['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat'].map(vmdk),
];
export const FORMAT_NAMES = [...FORMATS, ...MORE].map(({ name }) => name);

function vmdk(kind) {
  const qemu = ['vmdk', '-o', `subformat=${kind}`];
  return { name: `vmdk-${kind}`, ours: ['vmdk', kind], qemu };
}

/**
 * A job is measured over and over for its share of this, but at least so many times: seconds for
 * all of the suite, where the caller did not say how often.
 */
const TIME = 300;
const LEAST_ROUNDS = 3;
const MOST_ROUNDS = 15;

/** The goal of a format that QEMU is at home in less than we are: see `goal` of the others. */
const GOAL = 0.7;

/**
 * @param {{statedRounds?: number, formats?: string[]}} options without rounds as many as there is
 *   time for, without formats those that all speak.
 */
export async function convert(bench, { statedRounds: rounds, formats }) {
  const chosen = [...FORMATS, ...MORE].filter((format) =>
    formats === undefined ? FORMATS.includes(format) : formats.includes(format.name),
  );
  const daemon = await bench.daemon('ours');
  const source = join(bench.folder, 'source.raw');
  const dataMib = await mixture(source, bench.sizeMib);
  console.log(`${bench.sizeMib} MiB, of which ${dataMib} MiB are data, the rest holes and zeroes`);
  await daemon.run('import', source, 'source', '--format', 'raw');
  const rows = [];
  const jobs = chosen.flatMap((format) => [
    [exports, format],
    [imports, format],
  ]);
  const end = performance.now() + TIME * 1000;
  for (const [index, [measure, format]] of jobs.entries()) {
    const now = performance.now();
    const until = now + (end - now) / (jobs.length - index);
    const goesOn = (round) =>
      rounds === undefined
        ? round < LEAST_ROUNDS || (round < MOST_ROUNDS && performance.now() < until)
        : round < rounds;
    rows.push(...(await measure(bench, daemon, { format, source, goesOn })));
  }
  return { rows };
}

async function exports(bench, daemon, { format, source, goesOn }) {
  const folder = join(bench.folder, 'export');
  const [name, subformat] = format.ours;
  const path = join(folder, 'out.image');
  const words = [path, '--format', name, '--subformat', subformat];
  const ours = () => timedHere(daemon, 'export', 'source', ...words);
  const [target, ...options] = format.qemu;
  const conversion = ['-f', 'raw', '-O', target, ...options, source, path];
  const theirs = () => timedThere(conversion, path);
  const empty = async () => {
    await rm(folder, { recursive: true, force: true });
    await command('mkdir', folder);
  };
  return pair(`export ${format.name}`, format, { ours, theirs, empty, goesOn });
}

/** From an image that qemu-img made into our store; QEMU's counterpart is its own format. */
async function imports(bench, daemon, { format, source, goesOn }) {
  const folder = join(bench.folder, 'import');
  await command('mkdir', folder);
  const [target, ...options] = format.qemu;
  const image = join(folder, 'in.image');
  const made = ['-f', 'raw', '-O', target, ...options, source, image];
  await command('qemu-img', 'convert', ...made);
  await command('sync', '--file-system', folder);
  const store = join(bench.folder, 'into');
  const words = [image, 'copy', '--copy', '--format', format.ours[0]];
  const ours = () => timedHere(daemon, 'import', ...words);
  const copy = join(store, 'out.qcow2');
  const theirs = () => timedThere(['-f', target, '-O', 'qcow2', image, copy], copy);
  const empty = async () => {
    await rm(store, { recursive: true, force: true });
    await command('mkdir', store);
    const vms = await daemon.call('list');
    if (vms.some((vm) => vm.name === 'copy')) await daemon.call('delete', { vm: 'copy' });
    await daemon.call('gc');
  };
  const rows = await pair(`import ${format.name}`, format, { ours, theirs, empty, goesOn });
  await rm(folder, { recursive: true });
  return rows;
}

/**
 * Alternating runs of both.
 * @returns a row for each: seconds, and how many times as fast ours was; the same against qemu-img
 * without its sync, and on a processor.
 */
async function pair(job, { goal = GOAL }, { ours, theirs, empty, goesOn }) {
  const seen = [[], []];
  for (let round = 0; goesOn(round); round += 1) {
    // Whoever comes first has the colder caches.
    for (const index of round % 2 === 0 ? [0, 1] : [1, 0]) {
      await empty();
      seen[index].push(await (index === 0 ? ours : theirs)());
    }
  }
  await empty();
  const rows = ['layerdisk', 'qemu-img convert'].map((target, index) => {
    const ratiosOf = (what) => seen[index].map((run, round) => run[what] / seen[0][round][what]);
    const ratios = ratiosOf('seconds');
    return {
      job,
      target,
      seconds: median(seen[index].map(({ seconds }) => seconds)),
      cpuSeconds: median(seen[index].map(({ cpu }) => cpu)),
      ratio: median(ratios),
      least: Math.min(...ratios),
      most: Math.max(...ratios),
      unsyncedRatio: median(ratiosOf('unsynced')),
      cpuRatio: median(ratiosOf('cpu')),
      rounds: ratios.length,
    };
  });
  const [own, other] = rows;
  const { ratio, least, most, unsyncedRatio, cpuRatio } = other;
  const times = `${own.seconds.toFixed(2)} s, qemu-img ${other.seconds.toFixed(2)} s`;
  const spread = `${least.toFixed(2)}..${most.toFixed(2)}`;
  const word = ratio >= goal ? 'reached' : 'MISSED';
  console.log(
    `${job.padEnd(32)} ${times}: ${ratio.toFixed(2)}x (${spread}), ${goal} ${word}; ` +
      `its file not synced ${unsyncedRatio.toFixed(2)}x; ` +
      `on a processor ${own.cpuSeconds.toFixed(2)} s, ${other.cpuSeconds.toFixed(2)} s: ` +
      `${cpuRatio.toFixed(2)}x`,
  );
  return rows;
}

/** Runs a command. @returns seconds that passed, and seconds on a processor with its children. */
async function timed(...words) {
  const script = 'TIMEFORMAT="%R %U %S"; time "$@"';
  const { stderr } = await promisify(execFile)('bash', ['-c', script, 'bash', ...words]);
  const [seconds, user, system] = stderr.trim().split('\n').at(-1).split(' ').map(Number);
  return { seconds, cpu: user + system };
}

/** qemu-img convert and `sync FILE`. */
async function timedThere(conversion, path) {
  const converted = await timed('qemu-img', 'convert', ...conversion);
  // Extents lie in files of their own beside the descriptor.
  const synced = await timed('sh', '-c', 'sync "$(dirname "$1")"/*', 'sh', path);
  return {
    seconds: converted.seconds + synced.seconds,
    unsynced: converted.seconds,
    cpu: converted.cpu + synced.cpu,
  };
}

/** The same for a command of ours, with what the daemon does for it. */
async function timedHere(daemon, ...args) {
  const before = await cpuOf(daemon);
  const { seconds, cpu } = await timed(...daemon.words, ...args);
  return { seconds, unsynced: seconds, cpu: cpu + (await cpuOf(daemon)) - before };
}

/** Hundredths of a second are what Linux counts in for /proc. */
const TICKS = 100;

async function cpuOf(daemon) {
  const { pid } = await daemon.call('daemon.status');
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  // Behind the name, which may hold blanks: utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Of the disk, in pieces of this size. */
const PIECE = 4 * MiB;
/** What the pieces of a disk are, over and over. */
const PATTERN = ['data', 'data', 'pieces', 'hole', 'data', 'zeroes', 'data', 'hole'];

/**
 * A raw disk of what lies in /usr here: whole pieces, pieces with holes every 64 KiB, written
 * zeroes, and holes. @returns MiB of data.
 */
async function mixture(path, sizeMib) {
  const tar = spawn('tar', ['-c', '/usr'], { stdio: ['ignore', 'pipe', 'ignore'] });
  const chunks = tar.stdout.iterator({ destroyOnReturn: false });
  let rest = Buffer.alloc(0);
  const next = async () => {
    const parts = [rest];
    for (let have = rest.length; have < PIECE; ) {
      const { value, done } = await chunks.next();
      if (done) throw new Error('/usr is too small for a disk of this size: --size');
      parts.push(value);
      have += value.length;
    }
    const all = Buffer.concat(parts);
    rest = all.subarray(PIECE);
    return all.subarray(0, PIECE);
  };
  const file = await open(path, 'wx');
  await file.truncate(sizeMib * MiB);
  for (let at = 0, count = 0; at + PIECE <= sizeMib * MiB; at += PIECE, count += 1) {
    const kind = PATTERN[count % PATTERN.length];
    if (kind === 'data') await file.write(await next(), 0, PIECE, at);
    if (kind === 'zeroes') await file.write(Buffer.alloc(PIECE), 0, PIECE, at);
    if (kind !== 'pieces') continue;
    const piece = await next();
    for (let inner = 0; inner < PIECE; inner += MiB / 8) {
      await file.write(piece, inner, MiB / 16, at + inner);
    }
  }
  await file.sync();
  await file.close();
  tar.stdout.destroy();
  return Math.round(((await stat(path)).blocks * 512) / MiB);
}
