/** The proof that a virtual CPU runs, and what is chosen for a guest. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { type Booted, bootSector, chooseAccelerator } from '../../src/guest/accelerator.js';

const installed = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
const skip = installed ? false : 'qemu-system-x86_64 is not installed';

t.test('a sector boots where guests do', { skip }, async (t) => {
  t.match(await bootSector('tcg'), { problem: undefined }, 'translated');
  const { accelerator, reason } = await chooseAccelerator('auto');
  t.equal(accelerator === 'tcg', reason !== undefined, reason ?? 'KVM');
  t.same(await chooseAccelerator('tcg'), { accelerator: 'tcg' }, 'asked for, so taken');
  // A KVM that is imitated works now and then.
  const asked = await chooseAccelerator('kvm').catch((error: unknown) => error);
  if (asked instanceof DiskError) t.equal(asked.code, 'not-supported', asked.message);
  else t.same(asked, { accelerator: 'kvm' });
});

const noKvm = existsSync('/dev/kvm') ? false : 'there is no /dev/kvm';

t.test('KVM is taken where it is not the slower one', { skip: noKvm }, async (t) => {
  const choose = (choice: 'auto' | 'kvm', kvm: Booted, tcg: Booted) =>
    chooseAccelerator(choice, async (accelerator) => (accelerator === 'kvm' ? kvm : tcg));
  const took = (ms: number) => ({ problem: undefined, ms });
  const never = { problem: 'a guest did not start', ms: 5000 };
  const kvm = { accelerator: 'kvm' };
  t.same(await choose('auto', took(400), took(90)), kvm, 'not compared');
  t.same(await choose('auto', took(3600), took(90)), {
    accelerator: 'tcg',
    reason: 'KVM takes 3.6 s to start what TCG starts in 0.1 s',
  });
  t.same(await choose('kvm', took(3600), took(90)), kvm, 'asked for');
  t.same(await choose('auto', took(1500), took(2500)), kvm, 'everything is slow');
  t.same(await choose('auto', took(1500), never), kvm);
  t.same(await choose('auto', never, took(90)), { accelerator: 'tcg', reason: never.problem });
  await t.rejects(choose('kvm', never, took(90)), {
    code: 'not-supported',
    message: 'KVM does not work here: a guest did not start',
  });
});
