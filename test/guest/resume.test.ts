/** What saved memory asks of the host before QEMU is started, and how a mismatch is said. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { acceleratorOf, checkFits, type SavedMemory } from '../../src/guest/resume.js';
import { sumFile } from '../../src/storage/file-checksum.js';
import { cannotBoot } from '../support/guest.js';
import { runProgram } from '../support/run-program.js';
import { tempFolder } from '../support/temp-folder.js';

const skip = cannotBoot();

t.test('what must be as it was', { skip }, async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'x.state');
  await writeFile(path, Buffer.alloc(3_000_000, 'memory'));
  const { stdout } = await runProgram('qemu-system-x86_64', ['--version']);
  const version = /version ([\d.]+)/.exec(stdout)?.[1] ?? '';
  const setup = {
    ...{ version, machine: 'pc-q35-7.2', accelerator: 'tcg' as const },
    ...{ arguments: ['-kernel', 'vmlinuz'], folder },
  };
  const memory: SavedMemory = { path, from: 'web@live', ...(await sumFile(path)), setup };
  const other = (change: Partial<SavedMemory['setup']>) => ({
    ...memory,
    setup: { ...setup, ...change },
  });
  await checkFits(memory, []);
  await checkFits(memory, ['-kernel', 'vmlinuz']);
  const [major = '', minor = ''] = version.split('.');
  await checkFits(other({ version: `${major}.${minor}.99` }), []);

  const hint = /--discard-memory/;
  const refusals = [
    [other({ version: '1.5.3' }), [], 'not-supported', /web@live.*QEMU 1\.5\.3.*QEMU \d/],
    [other({ processor: 'Z80' }), [], 'not-supported', /web@live.*Z80/],
    [memory, ['-kernel', 'bzImage'], 'usage', /web@live.*-kernel vmlinuz/],
    [other({ folder: join(folder, 'gone') }), [], 'not-found', /gone/],
    [{ ...memory, checksum: '00000000' }, [], 'damaged', /web@live/],
    [{ ...memory, size: 1 }, [], 'damaged', /web@live/],
  ] as const;
  for (const [each, extra, code, message] of refusals) {
    await t.rejects(checkFits(each, extra), { code, message, hint }, String(message));
  }
  t.equal(acceleratorOf(memory, 'auto'), 'tcg');
  t.equal(acceleratorOf(memory, 'tcg'), 'tcg');
  t.throws(() => acceleratorOf(memory, 'kvm'), { code: 'not-supported', hint });
});
