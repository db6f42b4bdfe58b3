/** The daemon's end of the line to its supervisor. */
import { writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import type { DiskErrorJson } from '../common/errors.js';
import { sendDescriptor } from '../storage/descriptor-passing.js';
import { memoryFile } from '../storage/libc.js';
import type { AdoptedMount } from '../transport/kernel/channel.js';
import {
  type DaemonWord,
  DESCRIPTORS_FD,
  type Handover,
  type KeptName,
  keptFileName,
  LINK_FD,
  type SupervisorWord,
} from './supervision.js';

export interface LinkEvents {
  /** The supervisor was asked to end. */
  readonly onStop: () => void;
  /** It is gone: nobody takes over from now on. */
  readonly onLost: () => void;
}

export class SupervisorLink {
  readonly handover: Handover;
  #isAlive = true;
  #events: LinkEvents | undefined;
  #renewed: ((outcome: { readonly problem?: string }) => void) | undefined;
  /** Under way. */
  #renewing: Promise<string | undefined> | undefined;

  private constructor(handover: Handover, socket: Socket, lines: Interface) {
    this.handover = handover;
    lines.on('line', (line) => {
      const word = JSON.parse(line) as SupervisorWord;
      if (word.stop === true) this.#events?.onStop();
      if (word.renewed !== undefined) this.#renewed?.(word.renewed);
    });
    lines.on('close', () => this.#lost());
    // Whether the daemon goes on is not decided here.
    socket.unref();
  }

  /**
   * Says that the program is loaded and waits until it is needed.
   * @returns undefined when the supervisor ends before that.
   */
  static async open(): Promise<SupervisorLink | undefined> {
    const socket = new Socket({ fd: LINK_FD, readable: true, writable: true });
    // A supervisor that was killed: the end of the lines says so, too.
    socket.on('error', () => undefined);
    const lines = createInterface({ input: socket });
    lines.on('error', () => undefined);
    socket.write(`${JSON.stringify({ warm: true } satisfies DaemonWord)}\n`);
    const first = await new Promise<string | undefined>((resolve) => {
      lines.once('line', resolve);
      lines.once('close', () => resolve(undefined));
    });
    if (first === undefined) return undefined;
    return new SupervisorLink(JSON.parse(first) as Handover, socket, lines);
  }

  /** Instead of `open`: this daemon could not go on where the running one is. */
  static refuse(error: DiskErrorJson): void {
    try {
      writeSync(LINK_FD, `${JSON.stringify({ error } satisfies DaemonWord)}\n`);
    } catch {
      // The supervisor is gone, and with it whoever wanted to know.
    }
  }

  listen(events: LinkEvents): void {
    this.#events = events;
    if (!this.#isAlive) events.onLost();
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /** Undefined once it is gone. */
  get supervisorPid(): number | undefined {
    return this.#isAlive ? this.handover.supervisorPid : undefined;
  }

  /** The mount that earlier daemons served. */
  get adopted(): AdoptedMount | undefined {
    const { kept, mount, negotiated, generation } = this.handover;
    if (kept.fuse === undefined || mount === undefined) return undefined;
    return {
      mount: { ...mount, fd: kept.fuse },
      takeover: true,
      ...(negotiated === undefined ? {} : { negotiated }),
      generation,
    };
  }

  /**
   * Has the program loaded anew for the next daemon; whoever asks while that is under way hears how
   * it ends. @returns what keeps it from starting, if anything does.
   */
  renew(): Promise<string | undefined> {
    this.#renewing ??= new Promise<string | undefined>((resolve) => {
      this.#renewed = ({ problem }) => resolve(problem);
      this.tell({ renew: true });
    }).finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  /** A descriptor that is to outlive this process. */
  keep(name: KeptName, fd: number): void {
    if (!this.#isAlive) return;
    try {
      sendDescriptor(DESCRIPTORS_FD, fd);
    } catch {
      this.#lost();
      return;
    }
    this.tell({ keep: name });
  }

  /** Written when this returns. */
  tell(word: DaemonWord): void {
    if (!this.#isAlive) return;
    try {
      writeSync(LINK_FD, `${JSON.stringify(word)}\n`);
    } catch {
      this.#lost();
    }
  }

  #lost(): void {
    if (!this.#isAlive) return;
    this.#isAlive = false;
    this.#renewed?.({ problem: 'the supervisor is gone' });
    this.#events?.onLost();
  }
}

/** A file in memory that outlives this process: the last daemon's, or a new one. */
export function keptFile(link: SupervisorLink | undefined, name: KeptName): number | undefined {
  if (link === undefined) return undefined;
  const inherited = link.handover.kept[name];
  if (inherited !== undefined) return inherited;
  const fd = memoryFile(keptFileName(name));
  link.keep(name, fd);
  return fd;
}
