/** Calls handlers of the control protocol without a server. */
import type {
  CallContext,
  Handlers,
  MethodName,
  Params,
  Result,
} from '../../src/control/protocol.js';

export type Calls<M extends MethodName> = {
  readonly [Name in M]: (
    params: Params<Name>,
    context?: Partial<CallContext>,
  ) => Promise<Result<Name>>;
};

/** The same methods, with a context that neither cancels nor listens unless one is given. */
export function callable<M extends MethodName>(handlers: Pick<Handlers, M>): Calls<M> {
  const { signal } = new AbortController();
  const quiet: CallContext = { signal, progress: () => undefined, event: () => undefined };
  const entries = Object.entries(
    handlers as Record<string, (p: unknown, c: CallContext) => unknown>,
  );
  return Object.fromEntries(
    entries.map(([name, handler]) => [
      name,
      (params: unknown, context: Partial<CallContext> = {}) =>
        handler(params, { ...quiet, ...context }),
    ]),
  ) as Calls<M>;
}
