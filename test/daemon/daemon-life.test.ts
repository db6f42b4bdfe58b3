/** A daemon process as its supervisor sees it, where there can be none. */
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
