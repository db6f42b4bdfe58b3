/** VHD images that qemu-img made: content as qemu-img sees it. */
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { openVhd } from '../../src/formats/vhd/vhd-image.js';
import { firstDifference } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { createRandom } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { qemuImg } from '../support/tools.js';

const SIZE = 7 * 1024 * 1024;
const OPTIONS = ['dynamic', 'fixed', 'dynamic,force_size=on', 'fixed,force_size=on'];

t.test('qemu-img convert, then qemu-io writes', async (t) => {
  const qemu = qemuImg(t);
  if (qemu === undefined) return;
  const folder = tempFolder(t);
  const random = createRandom(41);
  const run = (command: string, ...args: string[]) =>
    execFileSync(command, args, { cwd: folder, stdio: 'pipe' });
  const content = Buffer.alloc(SIZE);
  random.bytes(300_000).copy(content, 1_900_000);
  content.fill('text ', 5_000_000, 5_500_000);
  writeFileSync(join(folder, 'a.raw'), content);
  for (const [index, options] of OPTIONS.entries()) {
    const name = `${index}.vhd`;
    run(qemu, 'convert', '-f', 'raw', '-O', 'vpc', '-o', `subformat=${options}`, 'a.raw', name);
    const writes: string[] = [];
    for (let write = 1; write < 12; write += 1) {
      const at = 512 * random.below((SIZE - 200_000) / 512);
      writes.push('-c', `write -P ${write} ${at} ${512 * (1 + random.below(300))}`);
    }
    run('qemu-io', ...writes, '-f', 'vpc', name);
    run(qemu, 'convert', '-f', 'vpc', '-O', 'raw', name, 'b.raw');
    const image = openVhd(join(folder, name));
    const { size } = statSync(join(folder, 'b.raw'));
    t.equal(image.virtualSize, size, `${options}: size`);
    const expected = readFileSync(join(folder, 'b.raw'));
    t.equal(firstDifference(readChain([image], 0, size), expected), -1, options);
    t.equal(image.info().subformat, options.split(',')[0]);
    image.close();
  }
});
