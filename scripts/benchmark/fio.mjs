/** The fio jobs, named as everywhere in the project, and how one is run on one file. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { interrupted } from './interrupt.mjs';

const run = promisify(execFile);

const psync = (rw, bs, jobs) => [`--rw=${rw}`, `--bs=${bs}`, `--numjobs=${jobs}`];
const libaio = (rw, bs, jobs, depth) => [
  ...psync(rw, bs, jobs),
  '--ioengine=libaio',
  `--iodepth=${depth}`,
];

/**
 * r/w: random 4 KiB read or write; s: sequential, with its block size; the number behind is that of
 * jobs or of requests in flight.
 */
export const JOBS = {
  rr1: { what: '4 KiB random reads, 1 job', args: psync('randread', '4k', 1) },
  rr4: { what: '4 KiB random reads, 4 jobs', args: psync('randread', '4k', 4) },
  rw1: { what: '4 KiB random writes, 1 job', args: psync('randwrite', '4k', 1) },
  rw4: { what: '4 KiB random writes, 4 jobs', args: psync('randwrite', '4k', 4) },
  aio32: { what: '4 KiB random reads, 32 in flight', args: libaio('randread', '4k', 1, 32) },
  rr4x8: { what: '4 KiB random reads, 4 jobs x 8', args: libaio('randread', '4k', 4, 8) },
  rw4x8: { what: '4 KiB random writes, 4 jobs x 8', args: libaio('randwrite', '4k', 4, 8) },
  rr64k: { what: '64 KiB random reads, 1 job', args: psync('randread', '64k', 1) },
  sr64k: { what: '64 KiB sequential reads', args: psync('read', '64k', 1) },
  sw64k: { what: '64 KiB sequential writes', args: psync('write', '64k', 1) },
  sr: { what: '1 MiB sequential reads', args: psync('read', '1m', 1) },
  sw: { what: '1 MiB sequential writes', args: psync('write', '1m', 1) },
  mix: { what: '4 KiB random, 70 % reads', args: [...psync('randrw', '4k', 1), '--rwmixread=70'] },
  ws: {
    what: '4 KiB random writes, fsync each',
    args: [...psync('randwrite', '4k', 1), '--fsync=1'],
  },
  bw: {
    what: '4 KiB random buffered writes, fsync at the end',
    args: [...psync('randwrite', '4k', 1), '--end_fsync=1'],
    buffered: true,
  },
};

/**
 * @param {string} file what to read and write.
 * @param {{args: string[], buffered?: boolean}} job
 * @param {{seconds: number, sizeMib: number, buffered?: boolean}} options
 * @returns {Promise<number>} operations a second.
 */
export async function measure(file, job, { seconds, sizeMib, buffered = false }) {
  const direct = buffered || job.buffered === true ? 0 : 1;
  const { read, write } = await fio(file, sizeMib, [
    ...[`--direct=${direct}`, '--time_based', `--runtime=${seconds}s`, ...job.args],
  ]);
  return read.iops + write.iops;
}

/**
 * How long reads take: of 100 all but one are answered within `p99` milliseconds.
 * @returns {Promise<{iops: number, p50: number, p99: number}>}
 */
export async function latencies(file, job, { seconds, sizeMib }) {
  const time = ['--direct=1', '--time_based', `--runtime=${seconds}s`];
  const { read } = await fio(file, sizeMib, [...time, ...job.args]);
  const { '50.000000': p50, '99.000000': p99 } = read.clat_ns.percentile;
  return { iops: read.iops, p50: p50 / 1e6, p99: p99 / 1e6 };
}

/** Random 4 KiB writes, none of them twice. @returns {Promise<number>} operations a second. */
export async function writeOnce(file, { sizeMib, writtenMib }) {
  const args = [...psync('randwrite', '4k', 1), '--direct=1', `--io_size=${writtenMib}m`];
  return (await fio(file, sizeMib, args)).write.iops;
}

/** Writes for some seconds. @returns {Promise<number>} the longest that one took, milliseconds. */
export async function longestWrite(file, { seconds, sizeMib }) {
  const time = ['--direct=1', '--time_based', `--runtime=${seconds}s`];
  const { write } = await fio(file, sizeMib, [...psync('randwrite', '4k', 4), ...time]);
  return write.clat_ns.max / 1e6;
}

async function fio(file, sizeMib, args) {
  const words = [
    ...['--name=bench', `--filename=${file}`, `--size=${sizeMib}m`, '--allow_file_create=0'],
    ...['--randrepeat=0', '--group_reporting', '--output-format=json', ...args],
  ];
  const { stdout } = await run('fio', words, { signal: interrupted });
  // fio prints notes before the document now and then.
  const result = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs[0];
  if (result.error !== 0) throw new Error(`fio on ${file}: error ${result.error}`);
  return result;
}
