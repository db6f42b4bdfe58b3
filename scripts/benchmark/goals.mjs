/**
 * What the figures are to reach, and what falls short. Ratios are how many times as fast ours is;
 * `atMost` goals are of figures that should be small.
 */

const AT_LEAST = 'at least';
const AT_MOST = 'at most';

/** One goal for each job, against the target whose name has `against` in it. */
function jobs(against, goals) {
  return Object.entries(goals).map(([job, goal]) => ({ job, against, goal, kind: AT_LEAST }));
}

/** Deep chains: here the other targets are ours, too, and the first is the one of one layer. */
function depths(kind, goals) {
  return [64, 200].flatMap((depth) =>
    Object.entries(goals).map(([job, goal]) => ({
      ...{ job, against: `depth ${depth}, ${kind}`, goal: 1 / goal, kind: AT_MOST },
    })),
  );
}

function figure(what, goal) {
  return { what, goal, kind: AT_MOST };
}

const QEMU = 'QEMU FUSE, qcow2, depth';
const FIRST = 'first rw1';

/** By suite. */
const GOALS = {
  limit: jobs('C daemon', { rr1: 0.85, rr4: 0.85, rw1: 0.85, rw4: 0.85, sr: 0.95 }),
  channels: jobs('fuse-native', { rr1: 2.5, rr4: 2.2, sr: 3, rw4: 6, aio32: 10 }),
  peers: [
    ...jobs(`${QEMU} 1`, { rr1: 2, rr4: 2.4, sr: 2.5, aio32: 3.5, rw4: 5, ws: 1 }),
    ...jobs(`${QEMU} 8`, { rr1: 2.2, rr4: 2.6, sr: 2.2, aio32: 4.5 }),
    ...jobs(`${QEMU} 64`, { rr1: 5.5, rr4: 7, sr: 2, aio32: 12 }),
  ],
  depth: [
    ...depths('64 KiB extents', { rr1: 0.95, rr4: 0.95, sr: 0.8 }),
    ...depths('scattered 4 KiB', { rr1: 0.95, rr4: 0.95, sr: 0.7 }),
  ],
  flat: [
    ...jobs('raw file', { rr1: 0.85, rr4: 0.85, sr: 0.85, aio32: 0.85 }),
    ...jobs('through the daemon', { rr1: 8 }),
  ],
  'first-write': [
    { job: FIRST, against: 'qcow2 overlay', goal: 3, kind: AT_LEAST },
    { job: FIRST, against: 'extended_l2', goal: 2, kind: AT_LEAST },
    { job: FIRST, against: 'layerdisk', field: 'spaceRatio', goal: 1.1, kind: AT_MOST },
  ],
  // Here the first target is the many clones, so that its ratio is theirs to the one.
  clones: jobs('one clone', { rr4: 0.9 }),
  control: [
    figure('snapshot under 4 writers, median', 3),
    figure('snapshot under 4 writers, 99 of 100', 20),
    figure('longest write meanwhile', 10),
    figure('1000 linked clones, 8 at a time', 2000),
    figure('memory for each that was opened', 64),
    figure('index for each GiB of scattered 4 KiB', 1),
    figure('index for each GiB of scattered 64 KiB', 0.1),
    figure('restore of a disk with 512 MiB in the page cache', 100),
  ],
};

/** Prints, for a suite that ran, how many goals it reached and each that it missed. */
export function printGoals({ suite, rows = [], figures = [] }) {
  const judged = (GOALS[suite] ?? []).flatMap((goal) => judge(goal, rows, figures) ?? []);
  if (judged.length === 0) return;
  const missed = judged.filter(({ reached }) => !reached);
  console.log(`goals: ${judged.length - missed.length} of ${judged.length} reached`);
  for (const { text } of missed) console.log(`MISSED ${text}`);
}

/** @returns undefined when what it is about was not measured. */
function judge(goal, rows, figures) {
  if (goal.what !== undefined) {
    const found = figures.find(({ what }) => what === goal.what);
    return (
      found && verdict(goal, found.value, `${goal.what}: ${number(found.value)} ${found.unit}`)
    );
  }
  const { job, against, field = 'ratio' } = goal;
  const row = rows.find((each) => each.job === job && hasName(each.target, against));
  if (row?.[field] === undefined) return undefined;
  const spread = field === 'ratio' ? ` (${number(row.least)}..${number(row.most)})` : '';
  const text = `${job} against ${row.target}: ${number(row[field])}x${spread}`;
  return verdict(goal, row[field], `${text}${profileOf(rows, row)}`);
}

/** `depth 6` is not meant by `depth 64`. */
function hasName(target, part) {
  const at = target.indexOf(part);
  return at !== -1 && !/\d/.test(target[at + part.length] ?? '');
}

function verdict({ goal, kind }, value, text) {
  const reached = kind === AT_LEAST ? value >= goal : value <= goal;
  return { reached, text: `${text}; goal: ${kind} ${number(goal)}` };
}

/** Where our time goes: what a request costs us, and how much of that is the kernel's part. */
function profileOf(rows, row) {
  // Ours comes first of those that a job compares.
  const upTo = rows.slice(0, rows.indexOf(row) + 1);
  const { cpu } = upTo.findLast((each) => each.job === row.job && each.isOurs) ?? {};
  if (cpu === undefined) return '';
  const kernel = Math.round(cpu.kernel * 100);
  return `, ours takes ${number(cpu.us)} us of CPU a request, ${kernel} % of it in the kernel`;
}

function number(value) {
  return value >= 100 ? String(Math.round(value)) : value.toFixed(2);
}
