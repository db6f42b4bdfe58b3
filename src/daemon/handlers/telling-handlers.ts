/**
 * The handlers of the control protocol, with every change that they made told to who listens: once,
 * after it stands, before the answer goes out.
 */
import { DiskError } from '../../common/errors.js';
import type {
  CallContext,
  Handlers,
  MethodName,
  NewEvent,
  Params,
  Result,
} from '../../control/protocol.js';
import { listLoopDevices } from '../../host/loop-devices.js';
import type { EventHub } from '../event-hub.js';
import type { GuestWatch } from '../guest-watch.js';
import { findMount } from './mount-handlers.js';
import { resolveTarget } from './targets.js';
import { type Known, nameOf, optional, type Place, partsOf, TOLD_CHANGES } from './told-changes.js';
import type { ViewSources } from './vm-views.js';

export interface TellingParts extends Pick<ViewSources, 'service' | 'mountpoint'> {
  readonly hub: EventHub;
  readonly guestWatch: Pick<GuestWatch, 'look'>;
  readonly onProblem: (what: string, error: unknown) => void;
}

type Handler<P, R> = (params: P, context: CallContext) => Promise<R>;

type Told = Exclude<keyof typeof TOLD_CHANGES, 'events'>;

export function tellingHandlers(handlers: Omit<Handlers, 'events'>, parts: TellingParts): Handlers {
  const told = Object.keys(TOLD_CHANGES) as Told[];
  const entryOf = <M extends Told>(method: M) =>
    [method, telling<M>(method, handlers[method], parts)] as const;
  const changing = told.map((method) => entryOf(method));
  return {
    ...handlers,
    ...(Object.fromEntries(changing) as Partial<Handlers>),
    export: tellingEnd(handlers.export, parts, ({ vm, snapshot, disk, path, format }) => {
      return { ...placeOf(parts, { vm, ...optional({ snapshot, disk }) }), path, format };
    }),
    'export.ova': tellingEnd(handlers['export.ova'], parts, ({ vm, snapshot, path }) => {
      return { vm, ...optional({ snapshot }), path, format: 'ova' };
    }),
    'export.machine': tellingEnd(handlers['export.machine'], parts, ({ vm, path, kind }) =>
      path === undefined ? undefined : { vm, path, format: kind },
    ),
    events: async (_, context) => ({ end: await parts.hub.listen(context) }),
  };
}

/** A method of which only the success is told. */
function telling<M extends MethodName>(
  method: M,
  work: Handler<Params<M>, Result<M>>,
  parts: TellingParts,
): Handler<Params<M>, Result<M>> {
  return async (params, context) => {
    const known = await beforehand(method, params, parts);
    const result = await work(params, context);
    tell(parts, () => TOLD_CHANGES[method]?.(params, result, known) ?? []);
    return result;
  };
}

interface Exported extends Place {
  readonly path: string;
  readonly format: string;
}

/** An export that had begun, however it ends. */
function tellingEnd<P, R>(
  work: Handler<P, R>,
  parts: TellingParts,
  describe: (params: P) => Exported | undefined,
): Handler<P, R> {
  return async (params, context) => {
    let hasBegun = false;
    const progress: CallContext['progress'] = (...done) => {
      hasBegun = true;
      context.progress(...done);
    };
    try {
      const result = await work(params, { ...context, progress });
      tell(parts, () => exportEvents(describe(params)));
      return result;
    } catch (error) {
      if (hasBegun) tell(parts, () => exportEvents(describe(params), error));
      throw error;
    }
  };
}

function exportEvents(exported: Exported | undefined, error?: unknown): NewEvent[] {
  if (exported === undefined) return [];
  const { path, format } = exported;
  const what = `of ${nameOf(exported)} to ${path}`;
  const about = { event: 'export.ended', ...partsOf(exported), path, format } as const;
  if (error === undefined) return [{ ...about, text: `export ${what}: done`, outcome: 'done' }];
  if (error instanceof DiskError && error.code === 'interrupted') {
    return [{ ...about, text: `export ${what}: cancelled`, outcome: 'cancelled' }];
  }
  const problem = error instanceof Error ? error.message : String(error);
  return [{ ...about, text: `export ${what} failed: ${problem}`, outcome: 'failed', problem }];
}

/** What has happened stands, whether or not it can be told. */
function tell({ hub, guestWatch, onProblem }: TellingParts, describe: () => readonly NewEvent[]) {
  if (!hub.isHeard) return;
  try {
    guestWatch.look();
    for (const event of describe()) hub.publish(event);
  } catch (error) {
    onProblem('cannot tell of a change', error);
  }
}

/** Which disk it is: afterwards nothing may say so any more. */
async function beforehand<M extends MethodName>(
  method: M,
  params: Params<M>,
  parts: TellingParts,
): Promise<Known> {
  if (!parts.hub.isHeard) return {};
  try {
    return await lookBeforehand(method, params, parts);
  } catch (error) {
    parts.onProblem(`cannot see what ${method} is about`, error);
    return {};
  }
}

async function lookBeforehand<M extends MethodName>(
  method: M,
  params: Params<M>,
  parts: TellingParts,
): Promise<Known> {
  const asked = params as { target?: Place; device?: string; directory?: string } & Partial<Place>;
  switch (method) {
    case 'attach':
    case 'mount':
      return { place: placeOf(parts, asked as Place) };
    case 'detach': {
      if (asked.target !== undefined) return { place: placeOf(parts, asked.target) };
      const loop = listLoopDevices().find(({ device }) => device === asked.device);
      return knownPlace(parts, loop?.file);
    }
    case 'unmount':
      return knownPlace(parts, (await findMount(asked.directory ?? '')).file);
    default:
      return {};
  }
}

/** The disk that is meant, or as much of it as was said. */
function placeOf(parts: TellingParts, asked: Place): Place {
  try {
    return partsOf(resolveTarget(parts, partsOf(asked)));
  } catch (error) {
    // Whoever has the request says so.
    if (error instanceof DiskError) return partsOf(asked);
    throw error;
  }
}

/** From the path of an exposed file. */
function knownPlace({ mountpoint }: TellingParts, file: string | undefined): Known {
  if (file === undefined || !file.startsWith(`${mountpoint}/`)) return {};
  const names = file.slice(mountpoint.length + 1).split('/');
  const [vm = '', folder, snapshot] = names;
  const disk = (names.at(-1) ?? '').replace(/\.raw$/, '');
  if (names.length === 2) return { place: { vm, disk } };
  if (folder !== 'snapshots' || snapshot === undefined) return {};
  return { place: { vm, snapshot, disk } };
}
