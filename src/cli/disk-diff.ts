/** Differences of disks as they come in, page by page, shown as they come. */
import { type DiffExtent, DiffJoiner, type DiffPage, type DiskDiff } from '../common/disk-diff.js';
import { formatSize } from '../common/units.js';
import type { Params } from '../control/protocol.js';
import { plain } from './output.js';
import type { Session } from './session.js';
import { counted } from './views.js';

/** Columns as wide as those of `map`. */
const COLUMN = 16;

/** How what differs is shown: the disks one after the other, each with its extents. */
interface DiffView {
  begin?(page: DiffPage): void;
  disk?(disk: DiskDiff): void;
  extents?(extents: readonly DiffExtent[]): void;
  endDisk(disk: DiskDiff, total: DiffTotal): void;
  end?(): void;
}

interface DiffTotal {
  readonly bytes: number;
  readonly ranges: number;
}

/** Asks for all of it, and never holds more than a page. @throws DiskError as the daemon says. */
export async function showDiff(session: Session, params: Params<'snapshot.diff'>): Promise<void> {
  const view = session.json
    ? jsonView(session)
    : session.quiet
      ? namesView(session)
      : tableView(session, params);
  const walk = new DiffWalk(view);
  let page = await session.call('snapshot.diff', params);
  view.begin?.(page);
  walk.take(page);
  while (page.next !== undefined) {
    await session.stdout.drained();
    page = await session.call('snapshot.diff', { ...params, next: page.next });
    walk.take(page);
  }
  walk.endDisk();
  view.end?.();
}

/** Puts together what the ends of pages cut apart. */
class DiffWalk {
  readonly #view: DiffView;
  readonly #joiner = new DiffJoiner();
  #disk: DiskDiff | undefined;
  #bytes = 0;
  #ranges = 0;

  constructor(view: DiffView) {
    this.#view = view;
  }

  take({ disks }: DiffPage): void {
    for (const part of disks) {
      if (this.#disk?.disk !== part.disk) {
        this.endDisk();
        this.#disk = part;
        this.#view.disk?.(part);
      }
      this.#bytes += part.changedBytes;
      this.#show(part.extents.flatMap((extent) => this.#joiner.add(extent) ?? []));
    }
  }

  endDisk(): void {
    if (this.#disk === undefined) return;
    const last = this.#joiner.end();
    if (last !== undefined) this.#show([last]);
    this.#view.endDisk(this.#disk, { bytes: this.#bytes, ranges: this.#ranges });
    this.#disk = undefined;
    this.#bytes = 0;
    this.#ranges = 0;
  }

  #show(extents: readonly DiffExtent[]): void {
    if (extents.length === 0) return;
    this.#ranges += extents.length;
    this.#view.extents?.(extents);
  }
}

function namesView({ stdout }: Session): DiffView {
  return {
    endDisk: (disk, { bytes }) => {
      if (bytes > 0) stdout.line(plain(disk.disk));
    },
  };
}

/** One document, whatever its length: what is known only at the end of a disk comes last. */
function jsonView({ stdout }: Session): DiffView {
  let beforeDisk = '';
  let beforeExtent = '';
  return {
    begin: ({ vm, from, to }) => {
      const head = JSON.stringify({ vm, from, ...(to === undefined ? {} : { to }) });
      stdout.raw(`${head.slice(0, -1)},"disks":[`);
    },
    disk: ({ disk, fromSize, toSize }) => {
      const head = JSON.stringify({ disk, fromSize, toSize });
      stdout.raw(`${beforeDisk}\n${head.slice(0, -1)},"extents":[`);
      beforeDisk = ',';
      beforeExtent = '';
    },
    extents: (extents) => {
      stdout.raw(`${beforeExtent}\n${extents.map((each) => JSON.stringify(each)).join(',\n')}`);
      beforeExtent = ',';
    },
    endDisk: (_, { bytes }) => stdout.raw(`],"changedBytes":${bytes}}`),
    end: () => stdout.line(']}'),
  };
}

function tableView({ stdout }: Session, params: Params<'snapshot.diff'>): DiffView {
  const { vm, from, to } = params;
  const [before, after] = [`${vm}@${from}`, to === undefined ? `${vm} now` : `${vm}@${to}`];
  let title: string | undefined;
  return {
    disk: ({ disk }) => {
      const columns = row('Offset', 'Length', 'Reads as');
      title = `${disk}:\n${stdout.style('bold', columns)}\n`;
    },
    extents: (extents) => {
      stdout.line(`${title ?? ''}${extents.map(extentLine).join('\n')}`);
      title = undefined;
    },
    endDisk: ({ disk, fromSize, toSize }, { bytes, ranges }) => {
      const size = formatSize(Math.max(fromSize ?? 0, toSize ?? 0));
      if (fromSize === undefined || toSize === undefined) {
        stdout.line(`${disk}: only in ${fromSize === undefined ? after : before}, ${size}`);
        return;
      }
      if (fromSize !== toSize) {
        const sizes = `${formatSize(fromSize)} in ${before}, ${formatSize(toSize)} in ${after}`;
        stdout.line(`${disk}: ${sizes}`);
      }
      if (bytes === 0) stdout.line(`${disk}: no difference`);
      else {
        const total = `${formatSize(bytes)} of ${size} in ${counted(ranges, 'range')}`;
        stdout.line(`${disk}: ${total}`);
      }
    },
  };
}

function extentLine({ start, length, zero }: DiffExtent): string {
  return row(hex(start), hex(length), zero ? 'zeroes' : 'data');
}

function row(start: string, length: string, content: string): string {
  return `${start.padEnd(COLUMN)}${length.padEnd(COLUMN)}${content}`;
}

function hex(bytes: number): string {
  return bytes === 0 ? '0' : `0x${bytes.toString(16)}`;
}
