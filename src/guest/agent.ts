/** The agent inside the guest (qemu-ga), through its virtio-serial channel. */
import { randomInt } from 'node:crypto';
import { DiskError } from '../common/errors.js';
import { JsonSocket } from './json-socket.js';

/** An agent that is there answers at once; one that is not never does. */
const SYNC_MS = 3000;
const MAX_SYNC_ID = 0x7fff_ffff;
/** A byte that is in no JSON: the agent's parser forgets what it had before it. */
const RESET = Buffer.from([0xff]);

export class GuestAgent {
  readonly #socket: JsonSocket;

  private constructor(socket: JsonSocket) {
    this.#socket = socket;
  }

  /**
   * Connects and sees that the agent answers: what an earlier connection left unread is skipped.
   * @throws DiskError `failed` when it does not.
   */
  static async connect(path: string): Promise<GuestAgent> {
    const socket = await JsonSocket.connect(path, 'the guest agent');
    try {
      const id = randomInt(1, MAX_SYNC_ID);
      socket.send(RESET);
      socket.send(`${JSON.stringify({ execute: 'guest-sync', arguments: { id } })}\n`);
      await socket.receive(SYNC_MS, (message) => message.return === id);
      return new GuestAgent(socket);
    } catch (error) {
      socket.close();
      throw error;
    }
  }

  /** @throws DiskError `failed` with the agent's own words, or when they do not come in time. */
  async execute(command: string, timeoutMs: number): Promise<unknown> {
    this.tell(command);
    const isAnswer = (message: object) => 'return' in message || 'error' in message;
    const answer = await this.#socket.receive(timeoutMs, isAnswer);
    if ('return' in answer) return answer.return;
    const { error } = answer as { error?: { desc?: unknown } };
    throw new DiskError('failed', `the guest agent refused ${command}: ${String(error?.desc)}`);
  }

  /** Sends a command without waiting for its answer. */
  tell(command: string): void {
    this.#socket.send(`${JSON.stringify({ execute: command })}\n`);
  }

  close(): void {
    this.#socket.close();
  }
}
