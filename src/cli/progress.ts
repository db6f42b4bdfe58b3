/**
 * Progress of long work on stderr: a bar that is drawn over on a terminal, plain lines on request.
 */
import { formatSize } from '../common/units.js';
import type { ProgressNotice } from '../control/protocol.js';
import { parseChoice } from './arguments.js';
import { type Output, plain } from './output.js';

const PROGRESS_MODES = ['auto', 'plain', 'none'] as const;
export type ProgressMode = (typeof PROGRESS_MODES)[number];

/** @throws DiskError `usage` for an unknown mode. */
export function parseProgressMode(text: string): ProgressMode {
  return parseChoice(text, '--progress', PROGRESS_MODES);
}

const LEAST_BAR_COLUMNS = 6;
const BAR_COLUMNS = 24;
/** Plain lines come at most this often, milliseconds. */
const PLAIN_INTERVAL_MS = 2000;
/** A bar is redrawn at most this often, milliseconds. */
const BAR_INTERVAL_MS = 100;
const ERASE_LINE = '\r\u001b[2K';

/** Shows the notices of one request. */
export class ProgressView {
  readonly #output: Output;
  readonly #style: 'bar' | 'plain' | 'none';
  readonly #now: () => number;
  #started: number | undefined;
  #startBytes = 0;
  #lastShown = Number.NEGATIVE_INFINITY;
  #drawn = false;
  #what = '';

  /** @param now milliseconds that only grow. */
  constructor(output: Output, mode: ProgressMode, now: () => number = () => performance.now()) {
    this.#output = output;
    this.#now = now;
    this.#style = mode === 'auto' ? (output.isTerminal ? 'bar' : 'none') : mode;
  }

  show(notice: ProgressNotice): void {
    if (this.#style === 'none') return;
    const now = this.#now();
    if (this.#started === undefined || notice.what !== this.#what) {
      this.#started = now;
      this.#startBytes = notice.doneBytes;
      this.#what = notice.what;
    }
    const interval = this.#style === 'bar' ? BAR_INTERVAL_MS : PLAIN_INTERVAL_MS;
    const last = notice.doneBytes >= notice.totalBytes;
    if (!last && now - this.#lastShown < interval) return;
    this.#lastShown = now;
    const seconds = (now - this.#started) / 1000;
    const rate = seconds > 0 ? (notice.doneBytes - this.#startBytes) / seconds : 0;
    const text = describe(notice, rate);
    if (this.#style === 'plain') {
      this.#output.line(text);
      return;
    }
    const room = this.#output.columns - 1;
    const bar = drawBar(notice, room - text.length, this.#output.unicode);
    this.#output.raw(`${ERASE_LINE}${`${bar}${text}`.slice(0, room)}`);
    this.#drawn = true;
  }

  /** Takes the bar away, so that what follows starts on a clean line. */
  clear(): void {
    if (this.#drawn) this.#output.raw(ERASE_LINE);
    this.#drawn = false;
  }
}

/** As long as `room` allows beside the text, which says more: on a narrow terminal nothing. */
function drawBar(notice: ProgressNotice, room: number, unicode: boolean): string {
  const columns = Math.min(BAR_COLUMNS, room - '[] '.length);
  if (columns < LEAST_BAR_COLUMNS) return '';
  const filled = Math.round(fraction(notice) * columns);
  const [full, empty] = unicode ? ['█', '░'] : ['#', '.'];
  return `[${full.repeat(filled)}${empty.repeat(columns - filled)}] `;
}

/** `copying web: 40 % 4 GiB of 10 GiB, 210 MiB/s, 0:29 left`. */
function describe(notice: ProgressNotice, rate: number): string {
  const percent = Math.floor(fraction(notice) * 100);
  const amount = `${formatSize(notice.doneBytes)} of ${formatSize(notice.totalBytes)}`;
  const head = `${plain(notice.what)}: ${percent} % ${amount}`;
  if (rate <= 0) return head;
  const left = Math.max(0, notice.totalBytes - notice.doneBytes) / rate;
  return `${head}, ${formatSize(Math.round(rate))}/s, ${formatDuration(left)} left`;
}

function fraction(notice: ProgressNotice): number {
  if (notice.totalBytes <= 0) return 1;
  return Math.min(1, Math.max(0, notice.doneBytes / notice.totalBytes));
}

/** `0:29`, `1:02:03`. */
export function formatDuration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  const rest = two(whole % 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}
