/**
 * The daemon put together: store, engine, VM operations, mount, control socket; and their orderly
 * end.
 *
 * Start: lock the store, open it, mount, listen. End: stop listening, unmount (the kernel writes
 * back what it holds), finish background work, flush and close every disk, unlock the store.
 */
import { DiskError } from '../common/errors.js';
import { type ControlServer, serveControl } from '../control/server.js';
import { LocalEngine } from '../engine/local-engine.js';
import type { BaseNotice } from '../engine/volume/base-table.js';
import { volumesOf } from '../engine/volume/thread.js';
import { openBase } from '../formats/base.js';
import { createKernelTransport, type KernelTransportOptions } from '../transport/kernel/channel.js';
import { HandleLog } from '../transport/kernel/handle-log.js';
import { createNativeTransport } from '../transport/native-channel.js';
import type { Transport, TransportEvent } from '../transport/transport.js';
import type { VmStore } from '../vm/store/vm-store.js';
import { VmService } from '../vm/vm-service.js';
import { baseRecords } from './base-sources.js';
import { forgetWhatRestoresChanged } from './forget-caches.js';
import { Guests } from './guests.js';
import { allHandlers } from './handlers/all-handlers.js';
import { DiskUsers } from './handlers/disk-users.js';
import { DaemonHooks } from './hooks.js';
import { dieLoudly } from './last-words.js';
import { leaveMount } from './leave-mount.js';
import type { LoadedThreads } from './loaded-threads.js';
import { type Logger, logOnce } from './logger.js';
import { StoreNamespace } from './namespace.js';
import { OpenFiles } from './open-files.js';
import { openStore } from './open-store.js';
import type { DaemonOptions } from './options.js';
import { Restart } from './restart.js';
import { SpaceWatch } from './space-watch.js';
import { StoreEvents } from './store-events.js';
import type { OrderlyEnd } from './supervision.js';
import { keptFile, type SupervisorLink } from './supervisor-link.js';
import { DaemonThreads, OTHER_THREADS } from './threads.js';

/** Why a daemon ended. After 'restart' the mount stands, and requests wait for the next daemon. */
export type DaemonEnd = OrderlyEnd;

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #log: Logger;
  readonly #store: VmStore;
  readonly #engine: LocalEngine;
  readonly #service: VmService;
  readonly #threads: DaemonThreads;
  readonly #link: SupervisorLink | undefined;
  readonly #guests: Guests;
  readonly #files = new OpenFiles();
  readonly #space: SpaceWatch;
  readonly #events: StoreEvents;
  readonly #startedAt = new Date();
  #transport: Transport | undefined;
  #users: DiskUsers | undefined;
  #control: ControlServer | undefined;
  #stopping: Promise<void> | undefined;
  #unmounting: Promise<void> | undefined;
  #resolveEnded: (end: DaemonEnd) => void = () => {};
  /** Resolves when everything is closed. */
  readonly ended: Promise<DaemonEnd>;

  private constructor(
    options: DaemonOptions,
    log: Logger,
    store: VmStore,
    loaded: LoadedThreads,
    link: SupervisorLink | undefined,
  ) {
    this.#options = options;
    this.#log = log;
    this.#store = store;
    this.#link = link;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#events = this.#gatherEvents();
    const bases = baseRecords(store, log, () => this.#transport?.mountpoint);
    this.#threads = new DaemonThreads({
      loaded,
      memory: () => this.#engine.memory,
      verifyReads: options.verifyReads,
      onBug: (what, error) => this.#threadDied(what, error),
      onRot: (rot) => this.#engine.foundRot(rot),
    });
    this.#engine = new LocalEngine({
      store: store.layout.root,
      threadCount: options.threads + OTHER_THREADS,
      suspectsFd: keptFile(link, 'suspects'),
      verifyReads: options.verifyReads,
      openBase,
      resolveBase: (id) => bases.resolve(id),
      baseAllocatedSize: (id) => bases.read(id).spec.allocatedSize,
      publishBase: (notice) => this.#publishBase(notice),
      runCopy: (job) => this.#threads.runCopy(job),
      runReclaim: (order, work) => this.#threads.runReclaim(order, work),
      onError: (what, error) => this.#events.failed(what, error),
    });
    this.#space = this.#watchSpace();
    this.#guests = new Guests({
      folder: store.layout.run,
      find: (vm) => store.catalog.find(vm),
      numbers: () => new Set(store.catalog.list().map(({ number }) => number)),
      log,
    });
    this.#service = new VmService({
      store,
      bases,
      engine: this.#engine,
      hooks: new DaemonHooks({
        engine: this.#engine,
        exposure: () => this.#service.exposure,
        transport: () => this.#transport,
        users: () => this.#users,
        ...{ guests: this.#guests, files: this.#files, log },
      }),
      ownFolders: [store.layout.root, options.mountpoint],
      room: this.#space,
      ...{ runExport: this.#threads.runExport, runDiff: this.#threads.runDiff },
      onProblem: (error) => log.error('background work failed', { error }),
    });
  }

  #publishBase(notice: BaseNotice): void {
    this.#threads.publishBase(notice);
    // One that is closed; any other is met with the first request for it.
    if (notice.spec === undefined) this.#transport?.wakeThreads?.();
  }

  #gatherEvents(): StoreEvents {
    return new StoreEvents({
      guests: () => this.#guests,
      service: () => this.#service,
      space: () => this.#space,
      log: this.#log,
    });
  }

  #watchSpace(): SpaceWatch {
    return new SpaceWatch({
      store: this.#store.layout.root,
      reserve: this.#options.reserve,
      allowance: this.#engine.context.allowance,
      log: this.#log,
      // The first look comes before the service: at its start it collects anyway.
      onShort: () => this.#service?.makeRoom(),
      onState: (state, facts) => this.#events.spaceChanged(state, facts),
    });
  }

  /**
   * Starts everything. @throws DiskError, with everything that was started ended again, but for a
   * mount that was taken over.
   */
  static async start(
    options: DaemonOptions,
    log: Logger,
    loaded: LoadedThreads,
    link?: SupervisorLink,
  ): Promise<Daemon> {
    const store = await openStore(options, link);
    const daemon = new Daemon(options, log, store, loaded, link);
    try {
      await daemon.#mount();
      await daemon.#forgetWhatRestoresChanged();
      await daemon.#listen();
    } catch (error) {
      if (link?.adopted !== undefined) throw error;
      await daemon.#close().catch((second: unknown) => {
        log.error('cannot clean up after a failed start', { error: second });
      });
      throw error;
    }
    await daemon.#guests.start();
    daemon.#service.start();
    daemon.#space.start(daemon.#transport?.held);
    daemon.#events.start();
    daemon.#engine.volumes.startFlushing();
    daemon.#engine.health.start();
    for (const { name, problem } of daemon.#service.damaged()) {
      log.error(`VM ${name} cannot be used`, { error: problem.message });
    }
    return daemon;
  }

  async #mount(): Promise<void> {
    const { transport: choice } = this.#options;
    const transport = choice === 'fuse-native' ? this.#native() : this.#kernel();
    try {
      await transport.start();
    } catch (error) {
      const canFallBack = error instanceof DiskError && error.code === 'not-supported';
      // A mount that was taken over stands already: nothing else can be mounted in its place.
      const isTaken = this.#link?.adopted !== undefined;
      if (choice !== 'auto' || !canFallBack || isTaken) throw error;
      this.#log.warn('no kernel channel here, taking fuse-native', { error: error.message });
      const other = this.#native();
      await other.start();
      this.#watch(other);
      return;
    }
    this.#watch(transport);
  }

  #kernel(): Transport {
    const { mountpoint, threads, allowOther, onFull } = this.#options;
    return createKernelTransport({
      mountpoint,
      namespace: this.#namespace(),
      threads: this.#threads,
      threadCount: threads,
      allowOther,
      holdWritesOf: onFull === 'pause' ? volumesOf(this.#engine.context) : undefined,
      onEvent: (event) => this.#event(event),
      ...this.#outlivingParts(),
    });
  }

  /** What lets the next daemon take the mount over from this one, and this one from the last. */
  #outlivingParts(): Partial<KernelTransportOptions> {
    const link = this.#link;
    const handles = keptFile(link, 'handles');
    if (link === undefined || handles === undefined) return {};
    const { adopted } = link;
    return {
      ...(adopted === undefined ? {} : { adopt: adopted }),
      handleLog: new HandleLog(handles),
      onMounted: ({ fd, ...mount }) => {
        if (adopted !== undefined) return;
        link.keep('fuse', fd);
        link.tell({ mount });
      },
      onNegotiated: (negotiated) => link.tell({ negotiated }),
      onThreadDeath: (index) => this.#threadDied(`I/O thread ${index}`, new Error('it ended')),
    };
  }

  /** It may have left locks behind that others wait for: better another process. */
  #threadDied(what: string, error: unknown): void {
    if (this.#link?.isAlive === true) dieLoudly(`${what} died`, error, this.#link);
    this.#log.error(`${what} died`, { error });
  }

  async #forgetWhatRestoresChanged(): Promise<void> {
    if (this.#link?.adopted === undefined) return;
    await forgetWhatRestoresChanged(this.#service.exposure, this.#files, this.#transport!);
  }

  #native(): Transport {
    const { mountpoint, allowOther, onFull } = this.#options;
    if (onFull === 'pause') {
      this.#log.warn('--on-full pause needs the kernel channel: a full store refuses writes');
    }
    return createNativeTransport({
      mountpoint,
      namespace: this.#namespace(),
      deviceOf: volumesOf(this.#engine.context),
      allowOther,
      onEvent: (event) => this.#event(event),
    });
  }

  #namespace(): StoreNamespace {
    return new StoreNamespace({
      exposure: this.#service.exposure,
      engine: this.#engine,
      files: this.#files,
      store: this.#options.store,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      onProblem: logOnce(this.#log),
    });
  }

  #watch(transport: Transport): void {
    this.#transport = transport;
    this.#users = new DiskUsers({
      mountpoint: transport.mountpoint,
      fileHolders: () => transport.holders(),
    });
    void transport.ended.then((end) => {
      if (end === 'stopped') return;
      this.#log.error(
        end === 'unmounted' ? 'the mount was taken away from outside: ending' : 'the mount broke',
      );
      void this.#finish(end);
    });
  }

  #event({ level, message, stack }: TransportEvent): void {
    const write = level === 'error' ? 'error' : level === 'warning' ? 'warn' : 'info';
    this.#log[write](message, stack === undefined ? {} : { stack });
  }

  async #listen(): Promise<void> {
    const transport = this.#transport!;
    const sources = {
      service: this.#service,
      users: this.#users!,
      flush: (top: string) => this.#engine.volumes.flush(top),
      mountpoint: transport.mountpoint,
      store: this.#store.layout.root,
      isOpen: (top: string) => this.#engine.volumes.isOpen(top),
      storedSize: (id: string) => this.#engine.deltas.describe(id).storedSize,
      guests: this.#guests,
      storeId: this.#store.identity.id,
      engine: this.#engine,
    };
    const restart = new Restart({
      link: this.#link,
      transport: () => this.#transport,
      log: this.#log,
      isEnding: () => this.#isEnding(),
      handOver: () => this.#handOver(),
    });
    const daemon = {
      transport,
      store: this.#options.store,
      threads: transport.kind === 'kernel' ? this.#options.threads : 1,
      allowOther: this.#options.allowOther,
      space: this.#space,
      startedAt: this.#startedAt,
      stop: () => this.#stopByRequest(),
      supervisorPid: () => this.#link?.supervisorPid,
      restart: () => restart.request(),
    };
    this.#control = await serveControl({
      path: this.#options.socket,
      handlers: allHandlers(sources, daemon, this.#events),
      log: this.#log,
      // A predecessor that is stuck in its own mount still has the socket.
      replace: this.#link?.adopted !== undefined,
    });
    this.#log.info('ready', { mountpoint: transport.mountpoint, socket: this.#options.socket });
  }

  /** The answer goes out before the socket closes: the rest of the end follows on its own. */
  async #stopByRequest(): Promise<void> {
    await this.#unmount();
    setImmediate(() => void this.#finish('stopped'));
  }

  async #unmount(): Promise<void> {
    this.#unmounting = this.#transport?.stop();
    await this.#unmounting;
  }

  /** See `RestartParts`. */
  async #isEnding(): Promise<boolean> {
    const isUnmounted = this.#unmounting?.then(() => true).catch(() => false);
    return ((await isUnmounted) ?? false) || this.#stopping !== undefined;
  }

  /** Whatever fails here: the next daemon finds everything acknowledged in the store. */
  async #handOver(): Promise<void> {
    const failed = (error: unknown): void => this.#log.error('at the restart', { error });
    this.#events.end('restart');
    await this.#control?.close().catch(failed);
    // Writes that wait for room are the next daemon's.
    await this.#space.stop().catch(failed);
    await this.#service.stop().catch(failed);
    await this.#engine.volumes.quiesce().catch(failed);
    this.#resolveEnded('restart');
  }

  /**
   * Ends the daemon. With `force`, the mount goes away although it is in use.
   * @throws DiskError `busy` naming who uses the mount, unless by force; everything goes on then.
   */
  async stop(options: { readonly force?: boolean } = {}): Promise<void> {
    if (options.force !== true) await this.#unmount();
    await this.#finish('stopped');
  }

  #finish(end: DaemonEnd): Promise<void> {
    this.#events.end('stopped');
    this.#stopping ??= this.#close()
      .catch((error: unknown) => {
        this.#log.error('the daemon did not end cleanly', { error });
        return 'failed' as const;
      })
      .then((outcome) => this.#resolveEnded(outcome ?? end));
    return this.#stopping;
  }

  async #close(): Promise<void> {
    await this.#control?.close();
    const isQuiet = await leaveMount(this.#transport, this.#log);
    await this.#space.stop();
    await this.#service.stop();
    await this.#engine.health.stop();
    await (isQuiet ? this.#engine.volumes.closeAll() : this.#engine.volumes.quiesce());
    await this.#threads.stop();
    this.#store.close();
  }
}
