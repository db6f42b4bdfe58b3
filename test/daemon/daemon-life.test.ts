/** A daemon process as its supervisor sees it, where there can be none. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import t from 'tap';
import { DaemonLife } from '../../src/daemon/daemon-life.js';

t.test('a process that cannot be made is a fault, not a kill by somebody else', async (t) => {
  const { execPath } = process;
  t.teardown(() => {
    process.execPath = execPath;
  });
  process.execPath = '/nonexistent/node';
  const options = { program: '/nonexistent', args: [], keptFds: [], hear: () => undefined };
  const life = new DaemonLife(options);
  t.equal(await life.warm, false);
  t.match(await life.over, { how: /ENOENT/, killed: false, wasReady: false });
});

t.test('descriptors lack, for its sockets or only for its pipe', async (t) => {
  const options = { program: '/nonexistent', args: [], keptFds: [], hear: () => undefined };
  // The soft limit alone: so few are soon taken, and the host's own are not.
  execFileSync('prlimit', ['--pid', String(process.pid), '--nofile=200:']);
  for (const left of [0, 2, 4]) {
    const life = withDescriptorsLeft(left, () => new DaemonLife(options));
    t.equal(await life.warm, false);
    t.match(await life.over, { how: /EMFILE/, killed: false, wasReady: false }, `${left} left`);
  }
});

/** Takes all descriptors that a process may have, but for so many, while `work` runs. */
function withDescriptorsLeft<T>(left: number, work: () => T): T {
  const taken: number[] = [];
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch {
    // That was the last one.
  }
  for (const fd of taken.splice(0, left)) closeSync(fd);
  try {
    return work();
  } finally {
    for (const fd of taken) closeSync(fd);
  }
}
