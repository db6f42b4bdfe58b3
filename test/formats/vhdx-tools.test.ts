/** VHDX images that qemu-img made: content as qemu-img sees it. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openVhdx } from '../../src/formats/vhdx/vhdx-image.js';
import { firstDifference } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { createRandom } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';

const SIZE = 7 * 1024 * 1024 + 512;
const OPTIONS = [
  'subformat=dynamic',
  'subformat=dynamic,block_size=1M',
  'subformat=dynamic,block_size=256M,log_size=4M',
  'subformat=dynamic,block_state_zero=off,block_size=2M',
  'subformat=fixed,block_size=1M',
];

t.test('qemu-img convert, then qemu-io writes', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const random = createRandom(31);
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { cwd: folder, stdio: 'pipe' });
  const content = Buffer.alloc(SIZE);
  random.bytes(300_000).copy(content, 1_900_000);
  content.fill('text ', 5_000_000, 5_500_000);
  writeFileSync(join(folder, 'a.raw'), content);
  for (const [index, options] of OPTIONS.entries()) {
    const name = `${index}.vhdx`;
    run(qemu, 'convert', '-f', 'raw', '-O', 'vhdx', '-o', options, 'a.raw', name);
    const before = openVhdx(join(folder, name));
    t.equal(before.info().subformat, options.includes('fixed') ? 'fixed' : 'dynamic');
    t.equal(firstDifference(readChain([before], 0, SIZE), content), -1, options);
    before.close();
    const writes: string[] = [];
    for (let write = 1; write < 12; write += 1) {
      const at = 512 * random.below((SIZE - 200_000) / 512);
      writes.push('-c', `write -P ${write} ${at} ${512 * (1 + random.below(300))}`);
    }
    run('qemu-io', ...writes, '-f', 'vhdx', name);
    run(qemu, 'convert', '-O', 'raw', name, 'b.raw');
    const after = openVhdx(join(folder, name));
    const expected = readFileSync(join(folder, 'b.raw'));
    t.equal(firstDifference(readChain([after], 0, SIZE), expected), -1, `${options}, written to`);
    after.close();
  }
});
