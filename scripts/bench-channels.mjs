/**
 * Compares the kernel channel with the fuse-native channel: the same fio jobs on both, in
 * alternation, medians and ratios with their spread. Needs root, /dev/fuse, fio and a built dist.
 *
 * node scripts/bench-channels.mjs [ROUNDS]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const CHANNELS = ['kernel', 'fuse-native'];
const SIZE_MIB = 256;
/** Names as everywhere: r/w random 4 KiB read or write, the number of jobs; sr sequential 1 MiB. */
const JOBS = {
  rr1: ['--rw=randread', '--bs=4k', '--numjobs=1', '--ioengine=psync'],
  rr4: ['--rw=randread', '--bs=4k', '--numjobs=4', '--ioengine=psync'],
  rw4: ['--rw=randwrite', '--bs=4k', '--numjobs=4', '--ioengine=psync'],
  sr: ['--rw=read', '--bs=1m', '--numjobs=1', '--ioengine=psync'],
  aio32: ['--rw=randread', '--bs=4k', '--numjobs=1', '--ioengine=libaio', '--iodepth=32'],
};

/** Operations a second of one fio job on a file, past the page cache. */
function measure(file, job) {
  const common = ['--name=x', `--filename=${file}`, `--size=${SIZE_MIB}m`, '--direct=1'];
  const time = ['--time_based', '--runtime=1s', '--group_reporting', '--output-format=json'];
  const said = execFileSync('fio', [...common, ...job, ...time], { encoding: 'utf8' });
  const { read, write } = JSON.parse(said).jobs[0];
  return read.iops + write.iops;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function main() {
  const rounds = Number(process.argv[2] ?? 5);
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-bench-'));
  const run = (channel, ...args) =>
    execFileSync('node', [CLI, '--store', join(folder, channel), ...args], { encoding: 'utf8' });
  const files = {};
  const started = [];
  try {
    for (const channel of CHANNELS) {
      run(channel, 'daemon', 'start', '--transport', channel);
      started.push(channel);
      run(channel, 'create', 'disk', '--disk', `${SIZE_MIB}M`);
      files[channel] = run(channel, 'path', 'disk').trim();
      const fill = ['if=/dev/urandom', `of=${files[channel]}`, 'bs=1M', `count=${SIZE_MIB}`];
      execFileSync('dd', [...fill, 'conv=notrunc,fsync', 'status=none']);
    }
    for (const [name, job] of Object.entries(JOBS)) {
      const ratios = [];
      const seen = { kernel: [], 'fuse-native': [] };
      for (let round = 0; round < rounds; round += 1) {
        for (const channel of CHANNELS) seen[channel].push(measure(files[channel], job));
        ratios.push(seen.kernel.at(-1) / seen['fuse-native'].at(-1));
      }
      const text = CHANNELS.map((channel) => `${channel} ${Math.round(median(seen[channel]))}/s`);
      const spread = `${Math.min(...ratios).toFixed(2)}..${Math.max(...ratios).toFixed(2)}`;
      console.log(`${name}: ${text.join(', ')}, ratio ${median(ratios).toFixed(2)} (${spread})`);
    }
  } finally {
    for (const channel of started) run(channel, 'daemon', 'stop');
    rmSync(folder, { recursive: true, force: true });
  }
}

main();
