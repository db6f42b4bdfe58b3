/** One run of one command: its places, its daemon connection, and how it shows what came back. */
import { harmlessJson } from '../common/harmless-json.js';
import {
  configFile,
  currentCaller,
  type Places,
  placesFromEnvironment,
  settlePlaces,
} from '../common/places.js';
import { type ControlClient, connect, type OnEvent } from '../control/client.js';
import type { MethodName, Params, Result } from '../control/protocol.js';
import type { GlobalArguments } from './command.js';
import { type Configuration, readConfiguration } from './configuration.js';
import { onInterrupt } from './interrupt.js';
import { Output, plain } from './output.js';
import { type ProgressMode, ProgressView, parseProgressMode } from './progress.js';

/** About twice what the next daemon takes to answer after one that died, on a busy machine. */
const REPLACEMENT_MS = 3000;

/** The two ways a result is shown besides `--json`. */
export interface View<T> {
  /** For `-q`: the names in the result, one a line. */
  names(result: T): readonly string[];
  /** For people: lines, in which nothing but styles needs to be harmless. */
  human(result: T, output: Output): readonly string[];
}

export class Session {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly #args: GlobalArguments;
  readonly #progress: ProgressMode;
  #configuration: Configuration | undefined;
  #places: Places | undefined;
  #client: Promise<ControlClient> | undefined;

  constructor(args: GlobalArguments) {
    this.#args = args;
    this.json = args.json;
    this.quiet = args.quiet;
    const progress = parseProgressMode(args.progress);
    this.#progress = this.quiet && progress === 'auto' ? 'none' : progress;
    this.stdout = new Output(process.stdout, process.env, !args['no-color']);
    this.stderr = new Output(process.stderr, process.env, !args['no-color']);
  }

  get configuration(): Configuration {
    this.#configuration ??= readConfiguration(configFile(currentCaller()));
    return this.#configuration;
  }

  /** The places: flags, then the environment, then the configuration file. */
  get places(): Places {
    this.#places ??= this.placesWith({});
    return this.#places;
  }

  /** The places with a mountpoint from the command line. */
  placesWith(flags: { readonly mountpoint?: string }): Places {
    const { store, socket } = this.#args;
    const caller = currentCaller();
    const typed = {
      ...flags,
      ...(store === undefined ? {} : { store }),
      ...(socket === undefined ? {} : { socket }),
    };
    return settlePlaces([typed, placesFromEnvironment(caller), this.configuration], caller);
  }

  /**
   * Asks the daemon, showing progress; ctrl-C cancels the request.
   * @param onEvent told of what `events` tells.
   * @throws DiskError as the daemon or the connection gave it.
   */
  async call<M extends MethodName>(
    method: M,
    params: Params<M>,
    onEvent?: OnEvent,
  ): Promise<Result<M>> {
    this.#client ??= connect(this.places.socket, { patience: REPLACEMENT_MS });
    const client = await this.#client;
    const progress = new ProgressView(this.stderr, this.#progress);
    const controller = new AbortController();
    const release = onInterrupt(() => {
      progress.clear();
      if (this.stderr.isTerminal) this.stderr.line('cancelling; ctrl-C again to stop waiting');
      controller.abort();
    });
    try {
      return await client.call(method, params, {
        signal: controller.signal,
        onProgress: (notice) => progress.show(notice),
        ...(onEvent === undefined ? {} : { onEvent }),
      });
    } finally {
      progress.clear();
      release();
    }
  }

  /** Shows a result in the way that was asked for. */
  show<T>(result: T, view: View<T>): void {
    if (this.json) {
      this.stdout.line(harmlessJson(JSON.stringify(result, null, 2)));
      return;
    }
    if (!this.quiet) {
      for (const line of view.human(result, this.stdout)) this.stdout.plainLine(line);
      return;
    }
    // Scripts get names as they are.
    const shown = this.stdout.isTerminal ? plain : (name: string) => name;
    for (const name of view.names(result)) this.stdout.line(shown(name));
  }

  /** Whether there is somebody who can be asked. */
  get canAsk(): boolean {
    return process.stdin.isTTY === true && this.stderr.isTerminal;
  }

  /** Ends the connection: the next call makes another one. */
  hangUp(): void {
    this.close();
    this.#client = undefined;
  }

  close(): void {
    // A connection that failed was reported by the call that wanted it.
    this.#client?.then((client) => client.close()).catch(() => {});
  }
}
