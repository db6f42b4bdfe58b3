/** The command as it is started: with the code that was kept for it, and without. */
import { cpSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { VERSION } from '../../src/common/version.js';
import { tool } from '../support/run-program.js';

const BUILT = fileURLToPath(new URL('../../dist/cli', import.meta.url));

/** Without the flags of the test runner, which V8 makes other code for. */
const node = (...args: string[]) => tool('env', ['-u', 'NODE_OPTIONS', 'node', ...args]);

t.test('V8 takes the code that was kept', async (t) => {
  const ask = 'console.log(require(process.argv[1]).script.cachedDataRejected)';
  t.equal(await node('-e', ask, join(BUILT, 'main.js')), 'false\n');
});

t.test('without it, or with other code, the command is compiled', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'layerdisk-launcher-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  cpSync(BUILT, folder, { recursive: true });
  const version = () => node(join(folder, 'main.js'), '--version');
  const cache = join(folder, 'program.cache');
  truncateSync(cache, 1000);
  t.equal(await version(), `${VERSION}\n`, 'cut off');
  writeFileSync(cache, 'of another version');
  t.equal(await version(), `${VERSION}\n`, 'something else');
  rmSync(cache);
  t.equal(await version(), `${VERSION}\n`, 'not there');
});
