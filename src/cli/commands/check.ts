/** `check`: whether everything in the store is what it was, and who is hurt by what is not. */
import { DiskError } from '../../common/errors.js';
import { formatSize } from '../../common/units.js';
import type { CheckView, FindingView, Params } from '../../control/protocol.js';
import { parseVm } from '../arguments.js';
import { defineCommand, OWN_OPTIONS } from '../command.js';
import { type Output, plain } from '../output.js';
import { counted } from '../views.js';

const NOTES = `Works while the VMs are in use. Without --deep it reads manifests, headers, tuples
and checksums; with --deep also every block of data that has a checksum (those of sealed deltas,
some seconds after a snapshot).
Exit code: 0 nothing found or all repaired, 7 damage, 8 only leaks.
--repair writes damaged copies anew from intact ones, computes missing checksums, and moves leaks
to the trash. It drops nothing else.`;

export const checkCommand = defineCommand({
  command: 'check [vm]',
  describe: 'Find damage and leaks in the store',
  notes: NOTES,
  example: 'layerdisk check --deep',
  options: (yargs) =>
    yargs
      .positional('vm', { type: 'string', describe: 'Only this VM; leaks are not looked for then' })
      .option('deep', { group: OWN_OPTIONS, type: 'boolean', describe: 'Read all data, too' })
      .option('repair', {
        group: OWN_OPTIONS,
        type: 'boolean',
        describe: 'Put right what can be without guessing',
      }),
  run: async (session, { vm, deep, repair }) => {
    const params: Params<'check'> = {
      ...(vm === undefined ? {} : { vm: parseVm(vm) }),
      ...(deep === true ? { deep } : {}),
      ...(repair === true ? { repair } : {}),
    };
    const result = await session.call('check', params);
    session.show(result, {
      names: () => [...new Set(result.findings.map(({ file }) => plain(file)))],
      human: (_, output) => [
        ...result.findings.flatMap((finding) => findingLines(output, finding)),
        ...summaryLines(result),
      ],
    });
    failOnFindings(result);
  },
});

function findingLines(output: Output, finding: FindingView): string[] {
  const { kind, file, message, repaired, remedy, seenBy, seenByMore, vm, disk, delta } = finding;
  const word = repaired ? output.style('green', 'repaired') : output.style('red', kind);
  const of = [
    vm === undefined ? undefined : `VM ${vm}`,
    disk === undefined ? undefined : `disk ${disk}`,
    delta === undefined ? undefined : `delta ${delta}`,
    rangeText('block', finding.block, finding.blocks),
  ].filter((text) => text !== undefined);
  const place = rangeText('byte', finding.offset, finding.length);
  const viewers = seenByMore > 0 ? [...seenBy, `and ${seenByMore} more`] : seenBy;
  const lines = [
    `${word}: ${plain(message)}`,
    `  in ${plain(file)}${place === undefined ? '' : `, ${place}`}`,
  ];
  if (of.length > 0) lines.push(`  of ${plain(of.join(', '))}`);
  if (delta !== undefined) {
    lines.push(`  seen by ${viewers.length === 0 ? 'nobody' : plain(viewers.join(', '))}`);
  }
  if (!repaired) lines.push(`  to do: ${plain(remedy)}`);
  return lines;
}

/** `block 7`, `blocks 7 to 9`. */
function rangeText(noun: string, first?: number, count?: number): string | undefined {
  if (first === undefined) return undefined;
  if (count === undefined || count === 1) return `${noun} ${first}`;
  return `${noun}s ${first} to ${first + count - 1}`;
}

function summaryLines({ vms, deltas, bytesRead, notSummed, more, repaired }: CheckView): string[] {
  const seen = `checked ${counted(vms, 'VM')}, ${counted(deltas, 'delta')}`;
  return [
    ...(more > 0 ? [`and ${counted(more, 'more finding')}`] : []),
    ...(repaired > 0 ? [`${counted(repaired, 'finding')} repaired`] : []),
    `${seen}; read ${formatSize(bytesRead)}`,
    ...(notSummed > 0 ? [`${counted(notSummed, 'sealed delta')} without checksums yet`] : []),
  ];
}

/** @throws DiskError `damaged` or `leaks`: the exit code. */
function failOnFindings({ damaged, leaks }: CheckView): void {
  if (damaged > 0) {
    throw new DiskError('damaged', `damage found: ${counted(damaged, 'finding')}`, {
      hint: 'what to do is said with each; some can be repaired: layerdisk check --repair',
    });
  }
  if (leaks > 0) {
    throw new DiskError('leaks', `nothing refers to ${counted(leaks, 'file')} of the store`, {
      hint: 'remove what nothing refers to: layerdisk gc',
    });
  }
}
