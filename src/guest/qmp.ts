/** QEMU's machine protocol: one connection at a time, so connections are short. */
import { DiskError } from '../common/errors.js';
import { type JsonObject, JsonSocket } from './json-socket.js';

/** QEMU answers at once, unless somebody else is connected. */
const ANSWER_MS = 10_000;

interface Greeting {
  readonly QMP: { readonly version: { readonly qemu: Readonly<Record<string, number>> } };
}

function versionOf({ QMP }: Greeting): string {
  const { major, minor, micro } = QMP.version.qemu;
  return `${major}.${minor}.${micro}`;
}

export class Qmp {
  /** Of QEMU, as `7.2.22`. */
  readonly version: string;
  readonly #socket: JsonSocket;
  #nextId = 1;

  private constructor(socket: JsonSocket, version: string) {
    this.#socket = socket;
    this.version = version;
  }

  /** @throws DiskError `failed` when QEMU does not answer there. */
  static async connect(path: string, timeoutMs = ANSWER_MS): Promise<Qmp> {
    const socket = await JsonSocket.connect(path, 'QEMU');
    try {
      const greeting = await socket.receive(timeoutMs, (message) => 'QMP' in message);
      const qmp = new Qmp(socket, versionOf(greeting as unknown as Greeting));
      await qmp.execute('qmp_capabilities');
      return qmp;
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** Runs `task` on a connection of its own. */
  static async with<T>(path: string, task: (qmp: Qmp) => Promise<T>): Promise<T> {
    const qmp = await Qmp.connect(path);
    try {
      return await task(qmp);
    } finally {
      qmp.close();
    }
  }

  /** @throws DiskError `failed` with QEMU's own words. */
  async execute(command: string, args?: JsonObject, timeoutMs = ANSWER_MS): Promise<unknown> {
    const id = this.#nextId++;
    const request = { execute: command, id, ...(args === undefined ? {} : { arguments: args }) };
    this.#socket.send(`${JSON.stringify(request)}\n`);
    const answer = await this.#socket.receive(timeoutMs, (message) => message.id === id);
    if ('return' in answer) return answer.return;
    const { error } = answer as { error?: { desc?: unknown } };
    throw new DiskError('failed', `QEMU refused ${command}: ${String(error?.desc)}`);
  }

  close(): void {
    this.#socket.close();
  }
}
