/** The proof that a virtual CPU runs. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { chooseAccelerator, probe } from '../../src/guest/accelerator.js';

const installed = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
const skip = installed ? false : 'qemu-system-x86_64 is not installed';

t.test('a sector boots where guests do', { skip }, async (t) => {
  t.equal(await probe('tcg'), undefined, 'translated');
  const { accelerator, reason } = await chooseAccelerator('auto');
  const works = (await probe('kvm')) === undefined;
  t.equal(accelerator, works ? 'kvm' : 'tcg', reason ?? 'KVM');
  t.same(await chooseAccelerator('tcg'), { accelerator: 'tcg' }, 'asked for, so taken');
  if (!works) await t.rejects(chooseAccelerator('kvm'), { code: 'not-supported' });
});
