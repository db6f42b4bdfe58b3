/** A B A B: the same job on several targets in turn, so that the machine's moods hit all alike. */
import { measure } from './fio.mjs';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/**
 * @param {{name: string, file: string, buffered?: boolean}[]} targets the first is ours; the
 *   others are what it is compared with.
 * @param {Record<string, {what: string, args: string[]}>} jobs
 * @param {{rounds: number, seconds: number, sizeMib: number}} options
 * @returns rows: for each job and target the median of operations a second, and how many times as
 *   fast ours was, pair by pair.
 */
export async function compete(targets, jobs, options) {
  const rows = [];
  for (const [name, job] of Object.entries(jobs)) {
    const seen = targets.map(() => []);
    for (let round = 0; round < options.rounds; round += 1) {
      for (const [index, target] of targets.entries()) {
        const buffered = target.buffered === true;
        seen[index].push(await measure(target.file, job, { ...options, buffered }));
      }
    }
    for (const [index, target] of targets.entries()) {
      const ratios = seen[index].map((value, round) => seen[0][round] / value);
      const row = {
        job: name,
        target: target.name,
        iops: Math.round(median(seen[index])),
        ratio: median(ratios),
        least: Math.min(...ratios),
        most: Math.max(...ratios),
      };
      rows.push(row);
      print(row, index === 0);
    }
  }
  return rows;
}

function print({ job, target, iops, ratio, least, most }, isFirst) {
  const spread = `${least.toFixed(2)}..${most.toFixed(2)}`;
  const compared = isFirst ? '' : `  the first is ${ratio.toFixed(2)}x (${spread})`;
  console.log(`${job.padEnd(7)} ${target.padEnd(24)} ${String(iops).padStart(8)}/s${compared}`);
}
