/** What the daemon does above a VM's disks around a snapshot: each thing once, and to its end. */
import t from 'tap';
import { DaemonHooks, type HookParts } from '../../src/daemon/hooks.js';

interface Seen {
  readonly hooks: DaemonHooks;
  /** What was let go, in order, and when that was done. */
  readonly done: string[];
}

/** @param users absent as before the mount is up. */
function withGuest({ users }: { readonly users: boolean }): Seen {
  const done: string[] = [];
  const letGo = async (what: string): Promise<void> => {
    done.push(`${what} begins`);
    await new Promise((resolve) => setImmediate(resolve));
    done.push(`${what} ends`);
  };
  const parts = {
    exposure: () => ({ find: () => undefined }),
    guests: { hold: async () => ({ consistency: 'paused', release: () => letGo('guest') }) },
    users: () =>
      users
        ? { flush: async () => ({ consistency: 'consistent', release: () => letGo('mounts') }) }
        : undefined,
  };
  return { hooks: new DaemonHooks(parts as unknown as HookParts), done };
}

t.test('a guest is let go once, after the file systems, and before anything else', async (t) => {
  const { hooks, done } = withGuest({ users: true });
  const { release, consistency } = await hooks.flushExposed('web');
  t.equal(consistency, 'paused');
  await release();
  const all = ['mounts begins', 'mounts ends', 'guest begins', 'guest ends'];
  t.strictSame(done, all);
  await new Promise((resolve) => setImmediate(resolve));
  t.strictSame(done, all, 'and nothing follows, which would meet the next one that holds it');
});

t.test('where nothing is mounted yet the end of letting go is waited for, too', async (t) => {
  const { hooks, done } = withGuest({ users: false });
  const { release } = await hooks.flushExposed('web');
  await release();
  t.strictSame(done, ['guest begins', 'guest ends']);
});
