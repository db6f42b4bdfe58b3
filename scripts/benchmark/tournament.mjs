/** A B A B: the same job on several targets in turn, so that the machine's moods hit all alike. */
import { measure } from './fio.mjs';
import { cpuTimeOf } from './targets.mjs';

const TICK_US = 10_000;

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/**
 * @param {{name: string, file: string, buffered?: boolean, pid?: number}[]} targets the first is
 *   ours; the others are what it is compared with. `pid`: whose CPU time is measured, too.
 * @param {Record<string, {what: string, args: string[]}>} jobs
 * @param {{rounds: number, seconds: number, sizeMib: number}} options
 * @returns rows: for each job and target the median of operations a second, and how many times as
 *   fast ours was, pair by pair; with `pid` also microseconds of CPU for each operation, the
 *   kernel's share of it, and how many times as much a target took as the first, which says the
 *   same on a busy machine.
 */
export async function compete(targets, jobs, options) {
  const rows = [];
  for (const [name, job] of Object.entries(jobs)) {
    const seen = targets.map(() => []);
    const cpu = targets.map(() => []);
    const inKernel = targets.map(() => []);
    for (let round = 0; round < options.rounds; round += 1) {
      for (const [index, target] of targets.entries()) {
        const { iops, cpuUs, kernelUs } = await run(target, job, options);
        seen[index].push(iops);
        if (cpuUs === undefined) continue;
        cpu[index].push(cpuUs);
        inKernel[index].push(kernelUs / cpuUs);
      }
    }
    for (const [index, target] of targets.entries()) {
      const speed = spread(seen[index].map((value, round) => seen[0][round] / value));
      const row = {
        job: name,
        target: target.name,
        iops: Math.round(median(seen[index])),
        ...speed,
      };
      if (target.pid !== undefined) {
        row.isOurs = target.isOurs === true;
        row.cpu = { us: median(cpu[index]), kernel: median(inKernel[index]) };
        // Where ours has one, too: of a daemon that serves others at the same time it says nothing.
        if (cpu[0].length > 0) {
          Object.assign(row.cpu, spread(cpu[index].map((value, round) => value / cpu[0][round])));
        }
      }
      rows.push(row);
      print(row, index === 0);
    }
  }
  return rows;
}

/** Operations a second, and microseconds of CPU for each where the target has a process. */
async function run(target, job, { seconds, sizeMib }) {
  const { file, pid, buffered = false } = target;
  const before = pid === undefined ? undefined : await cpuTimeOf(pid);
  const iops = await measure(file, job, { seconds, sizeMib, buffered });
  if (pid === undefined) return { iops };
  const after = await cpuTimeOf(pid);
  const kernelUs = ((after.kernel - before.kernel) * TICK_US) / (iops * seconds);
  const programUs = ((after.program - before.program) * TICK_US) / (iops * seconds);
  return { iops, cpuUs: kernelUs + programUs, kernelUs };
}

function spread(ratios) {
  return { ratio: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) };
}

function print({ job, target, iops, cpu, ...speed }, isFirst) {
  const compared = isFirst ? '' : `  the first is ${shown(speed)}`;
  const used = cpu === undefined ? '' : `  CPU ${cpu.us.toFixed(1).padStart(5)} us`;
  const more = cpu?.ratio === undefined || isFirst ? '' : `, ${shown(cpu)}`;
  console.log(
    `${job.padEnd(7)} ${target.padEnd(24)} ${String(iops).padStart(8)}/s${compared}${used}${more}`,
  );
}

function shown({ ratio, least, most }) {
  return `${ratio.toFixed(2)}x (${least.toFixed(2)}..${most.toFixed(2)})`;
}
