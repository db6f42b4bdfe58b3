/**
 * Words that begin with dashes, as scripts write them: none is lost, none is taken for something
 * else.
 */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { buildProgram } from '../../src/cli/program.js';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { runBatch, runCli } from './run-cli.js';

function refused(t: Test, args: string, message: RegExp, hint: RegExp): Promise<unknown> {
  return t.rejects(
    async () => (await buildProgram(args.split(' '))).parseAsync(),
    { name: 'DiskError', code: 'usage', message, hint },
    `layerdisk ${args}`,
  );
}

t.test('behind -- everything is a name', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const cwd = temporaryFolder(t);
  const lines = [
    'rename -- web www',
    'create --disk 1M -- vm',
    'snapshot take -- web@a',
    'export web -- -x.raw',
    'import -- -a.raw -b.raw vm',
    'list --',
  ].map((line) => ['--socket', path, ...line.split(' ')]);
  for (const { code, stderr } of await runBatch(lines, cwd)) t.equal(code, 0, stderr);
  t.match(calls, [
    { method: 'rename', params: { vm: 'web', name: 'www' } },
    { method: 'create', params: { vm: 'vm' } },
    { method: 'snapshot.take', params: { vm: 'web', snapshot: 'a' } },
    { method: 'export', params: { path: join(cwd, '-x.raw') } },
    { method: 'import', params: { files: [join(cwd, '-a.raw'), join(cwd, '-b.raw')], vm: 'vm' } },
    { method: 'list' },
  ]);
  await refused(t, 'list -- --json', /unknown option or argument: \.\/--json/, /list --help/);
});

t.test('a dash alone', async (t) => {
  await refused(t, 'export web -', /^export: "-" is no name, and no standard/, /as a stream.*cat/);
  await refused(t, 'export web - --format raw', /^export: "-" is no name/, /name a file/);
  await refused(t, 'import a.raw - web', /^import: "-" is no name/, /name a file/);
  await refused(t, 'import a.raw -', /^import: /, /name a file/);
  await refused(t, 'delete -', /^delete: "-" is no name/, /layerdisk delete --help/);
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const note = await runCli(['snapshot', 'take', 'web@a', '-m', '-', '--socket', path]);
  t.equal(note.code, 0, 'as the value of an option');
  t.match(calls, [{ params: { message: '-' } }]);
});

t.test('files that are others in the daemon', async (t) => {
  await refused(t, 'export web /dev/stdout --format raw', /^\/dev\/stdout is another/, /cat/);
  await refused(t, 'export web --vmx=/dev/fd/3', /^\/dev\/fd\/3 is another file/, /cat/);
  await refused(t, 'import /proc/self/fd/5 web', /^\/proc\/self\/fd\/5 is another/, /name a/);
});

t.test('names are no options', async (t) => {
  await refused(t, 'delete web --vm db', /^unknown option: --vm$/, /^layerdisk delete --help$/);
  await refused(t, 'info web --target=db', /unknown option: --target/, /info --help/);
  await refused(t, 'snapshot take web@a --snapshot b', /--snapshot/, /snapshot take --help/);
  await refused(t, 'export web a.raw --file b.raw', /unknown option: --file/, /export --help/);
  await refused(t, 'snapshot take web@a -m', /^no value for -m$/, /snapshot take --help/);
  await refused(t, 'list --socket=', /^--socket is empty$/, /give --socket a value/);
  const restore = 'snapshot restore web@a --save-current';
  await refused(t, `${restore}=`, /^--save-current is empty$/, /give --save-current a value/);
  await refused(t, `${restore} `, /^--save-current is empty$/, /give --save-current a value/);
});

t.test('what a hint says can be typed', async (t) => {
  const folder = temporaryFolder(t);
  const socket = join(folder, 'no daemon.sock');
  const lines = [
    ['list', '--socket', socket],
    ['list', `--store=${folder}`, '--json'],
    ['--store', folder, 'list', '--socket', 's.sock'],
    ['clone', 'web', '--store', folder],
    ['list'],
  ];
  const hints = (await runBatch(lines, folder)).map(({ stderr }) => stderr);
  t.match(hints[0], `\nhint: layerdisk --socket '${socket}' daemon start\n`);
  t.match(JSON.parse(hints[1] ?? '').error.hint, `layerdisk --store ${folder} daemon start`);
  t.match(hints[2], `\nhint: layerdisk --store ${folder} --socket s.sock daemon start\n`);
  t.match(hints[3], '\nhint: layerdisk clone --help\n', 'help needs no daemon');
  t.match(hints[4], '\nhint: layerdisk daemon start\n');
});

t.test('help for a command that there is not', async (t) => {
  for (const words of [
    ['help', 'lst'],
    ['lst', '--help'],
    ['snapshot', 'tke', '-h'],
  ]) {
    const result = await runCli(words);
    t.equal(result.code, 2, words.join(' '));
    t.match(result.stderr, /^layerdisk: unknown command ".*"\nhint: did you mean "/);
  }
  t.equal((await runCli(['info', 'web', '--help'])).code, 0);
});

t.test('image options and names of VMs', async (t) => {
  await refused(t, 'info web --format raw', /^--format is for image files, and "web"/, /\.\/NAME/);
  await refused(t, 'detach /dev/loop0 --disk a', /^--disk is for VMs, and "\/dev\/loop0"/, /VM/);
});
