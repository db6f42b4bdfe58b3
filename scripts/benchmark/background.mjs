/**
 * The suite `background`: how much later reads of one disk are answered while a long job runs on
 * another. The job begins again whenever it has ended, if that can be had without preparing it; how
 * often it ran is told beside.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { JOBS, latencies } from './fio.mjs';
import { scatter } from './targets.mjs';
import { median } from './tournament.mjs';

/** The 99th percentile grows by less than this. */
const GOAL = 2;
/** A row of deltas that is worth merging: see ROW_LENGTH in engine/jobs/merge.ts. */
const ROW = 10;
/** What each delta of a row holds. */
const ROW_WRITE = 1024 * 1024;

export async function background(bench, { rounds, seconds, sizeMib }) {
  const daemon = await bench.daemon('ours');
  const { file } = await bench.layerdisk(daemon, 'disk');
  await bench.layerdisk(daemon, 'bulk');
  await daemon.call('snapshot.take', { vm: 'bulk', snapshot: 'whole' });
  await bench.settled();
  const rows = [];
  for (const [name, job] of Object.entries(jobsOf(bench, daemon, sizeMib))) {
    for (const readers of ['rr1', 'rr4']) {
      const options = { seconds, sizeMib };
      const seen = [];
      for (let round = 0; round < rounds; round += 1) {
        await job.prepare?.();
        const alone = await latencies(file, JOBS[readers], options);
        const { result, times } = await during(job, () => latencies(file, JOBS[readers], options));
        seen.push({ alone, with: result, times });
      }
      rows.push(rowOf(`${name}, ${readers}`, seen));
    }
  }
  return { rows };
}

/** What runs beside the reads, and what it needs anew each time. */
function jobsOf({ folder }, { call }, sizeMib) {
  const path = join(folder, 'export.raw');
  const shape = { format: 'raw', subformat: 'sparse' };
  let merges = 0;
  return {
    'full clone': {
      run: async () => {
        await call('clone', { vm: 'bulk', snapshot: 'whole', name: 'copy', mode: 'full' });
        await call('delete', { vm: 'copy' });
      },
    },
    export: {
      run: async () => {
        await call('export', { vm: 'bulk', snapshot: 'whole', disk: 'disk0', path, ...shape });
        await rm(path);
      },
    },
    'deep check': { run: () => call('check', { deep: true }) },
    merge: {
      prepare: async () => {
        merges += 1;
        const vm = `row${merges}`;
        await call('create', { vm, disks: [{ size: sizeMib * 1024 * 1024 }] });
        const { path: file } = await call('path', { vm });
        for (let layer = 0; layer < ROW; layer += 1) {
          await scatter(file, sizeMib, ROW_WRITE);
          await call('snapshot.take', { vm, snapshot: `s${layer}` });
        }
        for (let layer = 0; layer < ROW; layer += 1) {
          await call('snapshot.delete', { vm, snapshot: `s${layer}` });
        }
      },
      run: () => call('gc'),
    },
  };
}

/** Runs a job again and again beside `measured`; the last time is waited for. */
async function during({ prepare, run }, measured) {
  let over = false;
  let times = 0;
  const work = (async () => {
    do {
      await run();
      times += 1;
    } while (!over && prepare === undefined);
  })();
  const result = await measured();
  over = true;
  await work;
  return { result, times };
}

function rowOf(job, seen) {
  const ratios = seen.map((round) => round.with.p99 / round.alone.p99);
  const row = {
    job,
    target: 'layerdisk',
    aloneMs: median(seen.map(({ alone }) => alone.p99)),
    withMs: median(seen.map((round) => round.with.p99)),
    ratio: median(ratios),
    least: Math.min(...ratios),
    most: Math.max(...ratios),
    iopsRatio: median(seen.map((round) => round.with.iops / round.alone.iops)),
    jobs: median(seen.map(({ times }) => times)),
  };
  const { aloneMs, withMs, ratio, least, most, iopsRatio, jobs } = row;
  console.log(
    `${job.padEnd(18)} 99 of 100 reads within ${aloneMs.toFixed(3)} ms alone, ` +
      `${withMs.toFixed(3)} ms with it: ${ratio.toFixed(2)}x (${least.toFixed(2)}..` +
      `${most.toFixed(2)}), below ${GOAL} ${ratio < GOAL ? 'reached' : 'MISSED'}; ` +
      `${iopsRatio.toFixed(2)} of the reads; ran ${jobs} times`,
  );
  return row;
}
