/** Programs of the host: what counts as their answer, and what as not having run them. */
import t from 'tap';
import { requireCommand, runCommand } from '../../src/host/host-command.js';

t.test('a non-zero exit is an answer, with the first line of what was said', async (t) => {
  const said = 'echo out; printf "sh: no\\nmore\\n" >&2; exit 3';
  t.same(await runCommand('sh', ['-c', said]), { code: 3, stdout: 'out\n', complaint: 'no' });
  t.same(await runCommand('sh', ['-c', 'cat']), { code: 0, stdout: '', complaint: '' });
});

t.test('its failure is that of the whole', async (t) => {
  t.equal(await requireCommand('cannot do it', 'sh', ['-c', 'echo done']), 'done\n');
  await t.rejects(requireCommand('cannot do it', 'sh', ['-c', 'echo "sh: why" >&2; exit 1']), {
    code: 'failed',
    message: 'cannot do it: why',
  });
  await t.rejects(requireCommand('cannot do it', 'sh', ['-c', 'exit 4']), {
    message: 'cannot do it: sh failed with 4',
  });
});

t.test('a program that is not there is named, and is no answer', async (t) => {
  const missing = { code: 'not-supported', message: /program no-such-program is not installed/ };
  await t.rejects(runCommand('no-such-program', []), missing);
  await t.rejects(requireCommand('cannot do it', 'no-such-program', []), missing);
  await t.rejects(runCommand('/etc/passwd', []), {
    code: 'failed',
    message: 'cannot run /etc/passwd: EACCES',
  });
});

t.test('one that is ended by a signal, or takes too long, gave no answer', async (t) => {
  const ended = { code: 'failed', message: 'cannot run sh: it was ended by a signal' };
  await t.rejects(runCommand('sh', ['-c', 'kill -KILL $$']), ended);
  await t.rejects(runCommand('sh', ['-c', 'exec sleep 100'], 10), ended);
});
