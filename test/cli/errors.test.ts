/** How errors leave the program: codes, the line and its hint, JSON, and nothing else. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { EXIT_CODES } from '../../src/cli/exit-codes.js';
import { buildProgram } from '../../src/cli/program.js';
import { DiskError, ERROR_CODES, type ErrorCode } from '../../src/common/errors.js';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { runProgram } from '../support/run-program.js';
import { CLI, runBatch, runCli } from './run-cli.js';

t.test('every error code has its exit code', async (t) => {
  t.same(EXIT_CODES, {
    failed: 1,
    usage: 2,
    unreachable: 3,
    'not-found': 4,
    exists: 5,
    busy: 6,
    damaged: 7,
    leaks: 8,
    'not-permitted': 9,
    'not-supported': 10,
    interrupted: 130,
  });
  let code: ErrorCode = 'failed';
  const { handlers } = recordingHandlers({
    list: async () => {
      throw new DiskError(code, 'cannot do it\u001b[2J', { hint: 'do that', errno: 'EIO' });
    },
  });
  const { path } = await serve(t, handlers);
  for (code of ERROR_CODES) {
    const result = await runCli(['list', '--json', '--socket', path]);
    t.equal(result.code, EXIT_CODES[code], code);
    t.equal(result.stdout, '');
    t.same(JSON.parse(result.stderr), {
      error: { code, message: 'cannot do it [2J', hint: 'do that' },
    });
  }
  const human = await runCli(['list', '--socket', path]);
  t.equal(human.stderr, 'layerdisk: cannot do it [2J\nhint: do that\n');
  const debug = await runCli(['list', '--socket', path, '--debug']);
  t.match(debug.stderr, /^layerdisk: cannot do it.*\nhint: do that\nDiskError: [\s\S]*\n +at /);
});

t.test('what could be taken for something else', async (t) => {
  const rows: readonly (readonly [args: string, message: RegExp, hint: RegExp])[] = [
    ['-- list', /which command\?/, /^layerdisk --help$/],
    ['--socket /s --json -- delete web', /which command\?/, /^layerdisk --help$/],
    ['list --json=yes', /--json: "yes" is neither true nor false/, /--json alone/],
    ['gc --dry-run=yes', /--dry-run: "yes" is neither/, /--dry-run alone/],
    ['check web@s', /names a snapshot/, /web/],
    ['delete web@s', /names a snapshot/, /^layerdisk snapshot delete web@s$/],
    ['rename web@s t', /names a snapshot/, /^layerdisk snapshot rename web@s NEW$/],
    ['mount web /mnt --read-only=', /--read-only: "" is neither/, /leave it out/],
  ];
  for (const [args, message, hint] of rows) {
    await t.rejects(
      async () => (await buildProgram(args.split(' '))).parseAsync(),
      { name: 'DiskError', code: 'usage', message, hint },
      args,
    );
  }
});

t.test('a file that is not there', async (t) => {
  const file = join(temporaryFolder(t), 'none.raw');
  for (const words of ['info', 'map']) {
    const result = await runCli([words, file]);
    t.equal(result.code, 4);
    t.match(result.stderr, `layerdisk: ${file}: no such file\nhint: see whether the path is`);
  }
});

t.test('the name of a VM that was forgotten', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'b.qcow2');
  writeFileSync(file, '');
  const [refused, slash, none] = await runBatch(
    [
      ['import', 'a.raw', 'b.qcow2', '--socket', 'none.sock'],
      ['import', 'a.raw', file, '--socket', 'none.sock'],
      ['import', 'a.raw', 'c.qcow2', '--socket', 'none.sock'],
    ],
    folder,
  );
  t.equal(refused?.code, 2);
  t.match(
    refused?.stderr,
    /names the new VM, but "b\.qcow2" names a file\nhint: .* FILE \.\.\. VM\n$/,
  );
  t.equal(slash?.code, 2);
  t.match(slash?.stderr, /but ".*\/b\.qcow2" names a file\n/);
  t.equal(none?.code, 3, 'a VM may be called so');
});

t.test('command lines that fit nothing', async (t) => {
  const rows: readonly (readonly [args: string, message: RegExp, hint: RegExp])[] = [
    ['', /which command\?/, /layerdisk --help/],
    ['lst', /unknown command "lst"/, /^did you mean "list"\? layerdisk --help$/],
    ['frobnicate', /unknown command "frobnicate"/, /^layerdisk --help$/],
    ['frobnicate list', /unknown command "frobnicate"/, /^layerdisk --help$/],
    ['x', /unknown command "x"/, /^layerdisk --help$/],
    ['--json --socket /s crate web', /"crate"/, /^did you mean "create"\? layerdisk --help$/],
    ['--socket /s create web', /missing option: --disk/, /^layerdisk create --help$/],
    ['list extra', /unknown option or argument: extra/, /layerdisk list --help/],
    ['list --bad', /^unknown option: --bad$/, /^layerdisk list --help$/],
    ['list --no-json', /^unknown option: --no-json$/, /list/],
    ['list --store', /no value for --store/, /list/],
    ['list --store=', /--store is empty/, /a value/],
    ['list --store a --store b', /--store is given more than once/, /give --store once/],
    ['list --progress fast', /--progress: unknown value "fast"/, /auto, plain, none/],
    ['snapshot', /which command\?/, /layerdisk snapshot --help/],
    ['snapshot tke web@a', /"snapshot tke"/, /^did you mean "snapshot take"\? layerdisk snap/],
    ['snapshot frobnicate', /"snapshot frobnicate"/, /^layerdisk snapshot --help$/],
    ['snapshot take', /too few arguments: got 0, need 1/, /layerdisk snapshot take --help/],
    ['snapshot take web', /"web" names no snapshot/, /VM@SNAPSHOT/],
    ['snapshot restore', /which snapshot\?/, /--save-current/],
    ['snapshot restore web@a', /--save-current \[NAME\] or --discard/, /--discard/],
    ['snapshot restore web@a --discard --save-current', /exclude each other/, /--discard/],
    ['create web', /missing option: --disk/, /layerdisk create --help/],
    ['create web --disk', /no value for --disk/, /create/],
    ['create web --disk a=1G --disk a=1G', /two disks are named "a"/, /--disk/],
    ['create web@s --disk 1G', /names a snapshot/, /web/],
    ['import file.img', /at least one file and the name/, /FILE \.\.\. VM/],
    ['import a.img web --format iso', /--format: unknown value "iso"/, /qcow2/],
    ['clone web copy', /exactly one of --linked and --full/, /--linked/],
    ['clone web copy --linked --full', /exactly one/, /--full/],
    ['export web disk', /"disk" does not tell the format/, /--format raw\|vdi/],
    ['export web disk.raw --format auto', /--format: unknown value "auto"/, /qcow2/],
    ['export web a.raw --allocation none', /--allocation: unknown value "none"/, /static/],
    ['set web --memory 0', /^--memory: a VM needs some$/, /512/],
    ['set web', /nothing to change/, /--vcpus/],
    ['mount web dir --partition 0', /--partition: "0"/, /--partition 1/],
    ['daemon start --threads x', /--threads: "x"/, /--threads/],
    ['daemon start --transport udp', /--transport: unknown value "udp"/, /kernel/],
  ];
  for (const [args, message, hint] of rows) {
    const words = args === '' ? [] : args.split(' ');
    await t.rejects(
      async () => (await buildProgram(words)).parseAsync(),
      { name: 'DiskError', code: 'usage', message, hint },
      `layerdisk ${args}`,
    );
  }
  const human = await runCli(['snapshot', 'tke']);
  t.equal(human.code, 2);
  t.equal(human.stdout, '');
  t.equal(
    human.stderr,
    'layerdisk: unknown command "snapshot tke"\n' +
      'hint: did you mean "snapshot take"? layerdisk snapshot --help\n',
  );
  const json = await runCli(['lst', '--json']);
  t.match(JSON.parse(json.stderr), { error: { code: 'usage', hint: /did you mean/ } });
});

t.test('an option that there is not is named before all else', async (t) => {
  const rows: readonly (readonly [args: string, message: RegExp, hint: RegExp])[] = [
    ['-v', /^unknown option: -v$/, /^layerdisk --help$/],
    ['-j list', /^unknown option: -j$/, /stand behind its name: layerdisk list --help$/],
    ['--linked clone web x', /^unknown option: --linked$/, /its name: layerdisk clone --help$/],
    ['list -qx', /^unknown option: -qx$/, /^layerdisk list --help$/],
    ['import -d.raw dash3', /^unknown option: -d\.raw$/, /^layerdisk import --help$/],
    ['disk add fs --disk 16M', /^unknown option: --disk$/, /^layerdisk disk add --help$/],
    ['disk --bad=1', /^unknown option: --bad$/, /^layerdisk disk --help$/],
    ['create web --disc 16M', /^unknown option: --disc$/, /^layerdisk create --help$/],
    ['crate web --disc 16M', /^unknown command "crate"$/, /did you mean "create"\?/],
    ['snapshot take -q -m text', /^too few arguments: got 0, need 1$/, /take --help$/],
  ];
  for (const [args, message, hint] of rows) {
    await t.rejects(
      async () => (await buildProgram(args.split(' '))).parseAsync(),
      { name: 'DiskError', code: 'usage', message, hint },
      `layerdisk ${args}`,
    );
  }
});

t.test('machine files are no copies', async (t) => {
  const rows: readonly (readonly [string, RegExp, RegExp])[] = [
    ['a.xml --libvirt-xml b.xml', /names the file itself, not "a\.xml"/, /a\.xml/],
    ['--vbox a.vbox --vmx a.vmx', /--vbox and --vmx exclude/, /after the other/],
    ['--vmx a.vmx --format raw', /--format does not go with --vmx/, /no copy/],
    ['--vmx a.vmx --disk root', /--disk does not go/, /--vmdk-descriptor/],
    ['--vbox a.vbox --ova', /--ova does not go/, /no copy/],
  ];
  for (const [args, message, hint] of rows) {
    await t.rejects(
      async () => (await buildProgram(`export web ${args}`.split(' '))).parseAsync(),
      { name: 'DiskError', code: 'usage', message, hint },
      args,
    );
  }
  await t.rejects(async () => (await buildProgram(['export', 'web'])).parseAsync(), {
    message: /say which file/,
    hint: /FILE\.qcow2/,
  });
  await t.rejects(
    async () => (await buildProgram(['export', 'web@v1', '--vbox', 'a.vbox'])).parseAsync(),
    { message: /web@v1 is a snapshot/, hint: /clone web@v1 NEW --linked/ },
  );
});

t.test('a command in a hint can be typed as it is', async (t) => {
  const words = ['export', 'web', "a's b.xml", '--libvirt-xml', 'c.xml'];
  await t.rejects(async () => (await buildProgram(words)).parseAsync(), {
    message: /names the file itself/,
    hint: /^layerdisk export web --libvirt-xml 'a'\\''s b\.xml'$/,
  });
});

t.test('an error is JSON where --json is asked of this program', async (t) => {
  const socket = join(temporaryFolder(t), 'none.sock');
  const asked = async (...words: string[]) => {
    const { stderr } = await runCli([...words.slice(0, 1), '--socket', socket, ...words.slice(1)]);
    return stderr.startsWith('{"error":');
  };
  t.equal(await asked('list', '--json'), true);
  t.equal(await asked('list', '--json=true'), true);
  t.equal(await asked('list', '--json=false'), false);
  t.equal(await asked('run', 'web', '--', '--json'), false, "QEMU's");
});

t.test('no daemon', async (t) => {
  const socket = join(temporaryFolder(t), 'none.sock');
  for (const args of ['list', 'daemon status', 'daemon stop', 'snapshot delete web@a']) {
    const result = await runCli([...args.split(' '), '--socket', socket]);
    t.equal(result.code, 3, args);
    t.equal(
      result.stderr,
      `layerdisk: no daemon answers on ${socket}\n` +
        `hint: layerdisk --socket ${socket} daemon start\n`,
    );
  }
  const long = await runCli(['list', '--store', `/${'x'.repeat(120)}`]);
  t.equal(long.code, 2, 'a store whose socket path is too long');
  t.match(long.stderr, /the most that works is 107\nhint: name a shorter one: --socket PATH/);
});

t.test('a folder that was removed', async (t) => {
  const cwd = join(temporaryFolder(t), 'removed');
  const script = 'rmdir "$PWD"; exec env -u NODE_OPTIONS "$0" "$@"';
  const run = (...words: string[]) => {
    mkdirSync(cwd);
    return runProgram('sh', ['-c', script, process.execPath, CLI, ...words], { cwd });
  };
  const message = 'the current folder is not there any more (ENOENT)';
  const hint = 'go to another one first: cd /';
  t.match(await run('list'), { code: 1, stderr: `layerdisk: ${message}\nhint: ${hint}\n` });
  const { stderr } = await run('list', '--json');
  t.same(JSON.parse(stderr), { error: { code: 'failed', message, hint } });
});
