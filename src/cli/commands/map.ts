/** `map`: which bytes of a disk lie where, for a VM or an image file. */
import type { MapExtent } from '../../common/extent-map.js';
import { harmlessJson } from '../../common/harmless-json.js';
import { parseTarget } from '../arguments.js';
import { defineCommand, type GlobalArguments } from '../command.js';
import { imagePages, joined, type MapPages, vmPages } from '../disk-map.js';
import {
  asNoFile,
  imageOpening,
  isFile,
  OPENING_OPTIONS,
  type OpeningArguments,
  refuseGiven,
} from '../image-target.js';
import { plain } from '../output.js';
import type { Session } from '../session.js';
import { parentOptions, targetOptions } from '../shared-options.js';

/** Columns as wide as those of qemu-img; the last one is open. */
const COLUMN = 16;

interface MapArguments extends GlobalArguments, OpeningArguments {
  readonly target: string;
  readonly disk?: string | undefined;
}

export const mapCommand = defineCommand<MapArguments>({
  command: 'map <target>',
  describe: 'Show where the bytes of a disk lie: of a VM, a snapshot, or an image file',
  notes:
    'Extents as qemu-img map prints them, with the file and the offset that answer; --json also ' +
    'shows what reads as zeroes, and for a VM which layer answers: a delta or a base image. ' +
    'What contains a slash, or is the name of a file in this folder, is an image file: it is ' +
    'read directly, with its parents, without the daemon.',
  example: 'layerdisk map web@clean --json; layerdisk map ./base.qcow2',
  repeatable: ['allow-folder'],
  options: (yargs) => parentOptions(targetOptions(yargs)),
  run: async (session, args) => {
    try {
      await show(session, joined(pagesOf(session, args)));
    } catch (error) {
      throw isFile(args.target) ? error : asNoFile(args.target, error);
    }
  },
});

function pagesOf(session: Session, args: MapArguments): MapPages {
  const { target, disk } = args;
  if (!isFile(target)) {
    refuseGiven(args, OPENING_OPTIONS, 'is for image files', target);
    return vmPages(session, parseTarget(target, disk));
  }
  refuseGiven(args, ['disk'], 'is for VMs', target);
  return imagePages(target, {
    ...imageOpening(args),
    onWarning: (text) => session.stderr.line(`layerdisk: ${plain(text)}`),
  });
}

/** Prints pages as they come: a map may be longer than what fits into memory. */
async function show(session: Session, pages: MapPages): Promise<void> {
  const { stdout } = session;
  if (session.json) await showJson(session, pages);
  else if (session.quiet) await showFiles(session, pages);
  else {
    // With the first page: a command that is refused prints nothing.
    const lines = [stdout.style('bold', row('Offset', 'Length', 'Mapped to', 'File'))];
    for await (const page of pages) {
      lines.push(...page.filter((extent) => extent.data).map(extentLine));
      if (lines.length > 0) stdout.line(lines.splice(0).join('\n'));
      await stdout.drained();
    }
  }
}

async function showJson({ stdout }: Session, pages: MapPages): Promise<void> {
  let before = '[';
  for await (const page of pages) {
    if (page.length === 0) continue;
    stdout.raw(
      `${before}${page.map((extent) => harmlessJson(JSON.stringify(extent))).join(',\n')}`,
    );
    before = ',\n';
    await stdout.drained();
  }
  // Nothing at all was printed for a disk without bytes.
  stdout.line(before === '[' ? '[]' : ']');
}

async function showFiles({ stdout }: Session, pages: MapPages): Promise<void> {
  const seen = new Set<string>();
  for await (const page of pages) {
    for (const { file } of page) {
      if (file === undefined || seen.has(file)) continue;
      seen.add(file);
      stdout.line(plain(file));
    }
  }
}

function extentLine({ start, length, offset, compressed, file = '-' }: MapExtent): string {
  const place = offset === undefined ? (compressed === true ? 'compressed' : '-') : hex(offset);
  return row(hex(start), hex(length), place, plain(file));
}

function row(start: string, length: string, place: string, file: string): string {
  return `${[start, length, place].map((cell) => cell.padEnd(COLUMN)).join('')}${file}`;
}

function hex(bytes: number): string {
  return bytes === 0 ? '0' : `0x${bytes.toString(16)}`;
}
