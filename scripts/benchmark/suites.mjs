/** The suites: which targets compete in which jobs. */
import { background } from './background.mjs';
import { controlSuite } from './control.mjs';
import { convert } from './convert.mjs';
import { JOBS, measure, writeOnce } from './fio.mjs';
import { command, MiB, ticksOf } from './targets.mjs';
import { compete, median } from './tournament.mjs';

const pick = (...names) => Object.fromEntries(names.map((name) => [name, JOBS[name]]));

export const SUITES = {
  limit: { title: 'Against a C daemon that does nothing else, and a raw file', run: limit },
  channels: { title: 'The kernel channel against fuse-native', run: channels },
  peers: { title: 'Against other FUSE routes to a virtual disk', run: peers },
  depth: { title: 'Deep chains against one layer', run: depth },
  flat: { title: 'A snapshot that is one raw file, against that file', run: flat },
  loop: { title: 'Through a loop device, against the file itself', run: loop },
  grid: { title: 'Every job at every depth, on the file and through loop devices', run: grid },
  'first-write': { title: 'First writes to a fresh clone', run: firstWrite },
  clones: { title: 'Reads spread over 64 clones, against one of them', run: clones },
  cpu: { title: 'What a request costs the processes that serve it', run: cpu },
  control: { title: 'Snapshots, clones, deletes', run: controlSuite },
  bases: { title: 'Reads through images of other formats, against a raw one', run: bases },
  background: { title: 'Reads while a long job runs beside them', run: background },
  convert: { title: 'Exports and imports against qemu-img convert', run: convert },
};

/** Nothing but the job runs: what the making of the targets left behind is waited for. */
async function competeAtRest(bench, ...competition) {
  await bench.settled();
  return compete(...competition);
}

async function limit(bench, options) {
  const daemon = await bench.daemon('ours');
  const targets = [await bench.layerdisk(daemon, 'disk'), await bench.limit(), await bench.raw()];
  return { rows: await competeAtRest(bench, targets, JOBS, options) };
}

async function channels(bench, options) {
  const daemon = await bench.daemon('ours');
  const native = await bench.daemon('native', '--transport', 'fuse-native');
  const other = await bench.layerdisk(native, 'disk');
  const targets = [await bench.layerdisk(daemon, 'disk'), { ...other, name: 'fuse-native' }];
  return {
    rows: await competeAtRest(bench, targets, pick('rr1', 'rr4', 'rw4', 'sr', 'aio32'), options),
  };
}

async function peers(bench, options) {
  const daemon = await bench.daemon('ours');
  const jobs = pick('rr1', 'rr4', 'rw1', 'rw4', 'sr', 'aio32', 'ws');
  const rows = [];
  for (const level of [1, 8, 64]) {
    const targets = [
      await bench.layerdisk(daemon, `disk${level}`, { depth: level }),
      await bench.qemu({ format: 'qcow2', depth: level }),
      ...(level === 1 ? [await bench.qemu(), await bench.nbdfuse()] : []),
    ];
    rows.push(...(await competeAtRest(bench, targets, jobs, options)));
  }
  return { rows };
}

const DEPTHS = [1, 8, 64, 200];

async function depth(bench, options) {
  const daemon = await bench.daemon('ours');
  const jobs = pick('rr1', 'rr4', 'sr');
  const rows = [];
  for (const [kind, writeBytes] of [
    ['64 KiB extents', 64 * 1024],
    ['scattered 4 KiB', 4 * 1024],
  ]) {
    const tag = kind.slice(0, 1);
    const targets = [];
    for (const level of DEPTHS) {
      const disk = await bench.layerdisk(daemon, `d${tag}${level}`, { depth: level, writeBytes });
      targets.push({ ...disk, name: `${disk.name}, ${kind}` });
    }
    rows.push(...(await competeAtRest(bench, targets, jobs, options)));
  }
  return { rows };
}

/** What qemu-img calls formats that are called otherwise here. */
const QEMU_NAMES = { vhd: 'vpc' };

/** Disks that stand on an image of each format and hold nothing themselves; goal: below 1.25. */
async function bases(bench, options) {
  const daemon = await bench.daemon('ours');
  const { pid } = await daemon.call('daemon.status');
  const { file: raw } = await bench.raw('base');
  const targets = [];
  for (const format of ['raw', 'vdi', 'vmdk', 'vhd', 'vhdx', 'qcow2']) {
    const image = format === 'raw' ? raw : `${raw}.${format}`;
    const kind = QEMU_NAMES[format] ?? format;
    if (image !== raw) await command('qemu-img', 'convert', '-f', 'raw', '-O', kind, raw, image);
    await daemon.call('import', { files: [image], vm: format, format });
    const { path: file } = await daemon.call('path', { vm: format });
    targets.push({ name: `${format} base`, file, pid });
  }
  const jobs = pick('rr1', 'rr4', 'rr64k', 'sr');
  return { rows: await competeAtRest(bench, targets, jobs, options) };
}

/** The kernel reads such a snapshot by itself; the disk above it is read through the daemon. */
async function flat(bench, options) {
  const daemon = await bench.daemon('ours');
  const { file: raw, name } = await bench.raw('base');
  await daemon.call('import', { files: [raw], vm: 'flat', format: 'raw' });
  await daemon.call('snapshot.take', { vm: 'flat', snapshot: 's' });
  const { path: file } = await daemon.call('path', { vm: 'flat', snapshot: 's' });
  const { path: disk } = await daemon.call('path', { vm: 'flat' });
  const targets = [
    { name: 'flat snapshot', file },
    { name, file: raw },
    { name: 'its disk, through the daemon', file: disk },
  ];
  return { rows: await competeAtRest(bench, targets, pick('rr1', 'rr4', 'sr', 'aio32'), options) };
}

const CLONES = 64;

async function clones(bench, options) {
  const daemon = await bench.daemon('ours');
  await bench.layerdisk(daemon, 'source');
  await daemon.call('snapshot.take', { vm: 'source', snapshot: 's' });
  const files = [];
  for (let count = 0; count < CLONES; count += 1) {
    files.push((await bench.clone(daemon, 'source@s', `c${count}`)).file);
  }
  const targets = [
    // fio's list of files.
    { name: `${CLONES} clones`, file: files.join(':') },
    { name: 'one clone', file: files[0] },
  ];
  return { rows: await competeAtRest(bench, targets, pick('rr4'), options) };
}

/** Microseconds of CPU for each request: says the same on a busy machine. */
async function cpu(bench, { rounds, seconds, sizeMib }) {
  const daemon = await bench.daemon('ours');
  const { pid } = await daemon.call('daemon.status');
  const targets = [{ ...(await bench.layerdisk(daemon, 'disk')), pid }, await bench.limit()];
  await bench.settled();
  const figures = [];
  for (const [name, job] of Object.entries(pick('rr1', 'rr4', 'rw4', 'aio32', 'sr'))) {
    const seen = targets.map(() => []);
    for (let round = 0; round < rounds; round += 1) {
      for (const [index, target] of targets.entries()) {
        const before = await ticksOf(target.pid);
        const iops = await measure(target.file, job, { seconds, sizeMib });
        const used = ((await ticksOf(target.pid)) - before) * 10_000;
        seen[index].push(used / (iops * seconds));
      }
    }
    for (const [index, target] of targets.entries()) {
      const value = median(seen[index]);
      figures.push({ what: `${name}, ${target.name}`, value, unit: 'us' });
      console.log(`${name.padEnd(7)} ${target.name.padEnd(24)} ${value.toFixed(1).padStart(8)} us`);
    }
  }
  return { figures };
}

async function loop(bench, options) {
  const daemon = await bench.daemon('ours');
  const file = await bench.layerdisk(daemon, 'disk');
  const targets = [file, await bench.loop(file, { directIo: true })];
  const buffered = await bench.loop(await bench.layerdisk(daemon, 'other'), { directIo: false });
  targets.push({ ...buffered, buffered: true });
  return {
    rows: await competeAtRest(
      bench,
      targets,
      pick('rr1', 'rr4', 'rw1', 'rw4', 'sr', 'sw'),
      options,
    ),
  };
}

async function grid(bench, options) {
  const daemon = await bench.daemon('ours');
  const targets = [];
  for (const level of DEPTHS) {
    const disk = (name) => bench.layerdisk(daemon, `${name}${level}`, { depth: level });
    const file = await disk('disk');
    const buffered = await bench.loop(await disk('other'), { directIo: false });
    targets.push(file, await bench.loop(file, { directIo: true }), { ...buffered, buffered: true });
  }
  return { rows: await competeAtRest(bench, targets, JOBS, options) };
}

/**
 * Each round on a clone or overlay that nobody has written to yet; and the space that it takes for
 * each byte written.
 */
async function firstWrite(bench, { rounds, sizeMib }) {
  const daemon = await bench.daemon('ours');
  await bench.layerdisk(daemon, 'source');
  await daemon.call('snapshot.take', { vm: 'source', snapshot: 'base' });
  const { file: base } = await bench.raw('base');
  const kinds = [
    ['layerdisk clone', (name) => bench.clone(daemon, 'source@base', name)],
    ['qcow2 overlay', (name) => bench.overlay(base, name, 'cluster_size=64k')],
    ['qcow2 extended_l2', (name) => bench.overlay(base, name, 'cluster_size=128k,extended_l2=on')],
  ];
  const writtenMib = Math.min(64, sizeMib / 4);
  const seen = kinds.map(() => []);
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, [, make]] of kinds.entries()) {
      const target = await make(`fresh-${index}-${round}`);
      const before = await target.takenBytes();
      const iops = await writeOnce(target.file, { sizeMib, writtenMib });
      const space = ((await target.takenBytes()) - before) / (writtenMib * MiB);
      seen[index].push({ iops, space });
      await target.end();
    }
  }
  const rows = kinds.map(([target], index) => {
    const ratios = seen[index].map(({ iops }, round) => seen[0][round].iops / iops);
    return {
      job: 'first rw1',
      target,
      iops: Math.round(median(seen[index].map(({ iops }) => iops))),
      ratio: median(ratios),
      least: Math.min(...ratios),
      most: Math.max(...ratios),
      spaceRatio: median(seen[index].map(({ space }) => space)),
    };
  });
  for (const { target, iops, ratio, spaceRatio } of rows) {
    const space = `${spaceRatio.toFixed(2)} bytes taken for each written`;
    console.log(`${target.padEnd(20)} ${iops}/s, the first is ${ratio.toFixed(2)}x; ${space}`);
  }
  return { rows };
}
