/** Every command says what it does and gives an example that parses. */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { asksForHelp, buildProgram, helpText } from '../../src/cli/program.js';
import { VERSION } from '../../src/common/version.js';

const helpOf = (...words: string[]) => helpText([...words, '--help']);

/** Names under `Commands:` in a help text, without the words that lead to them. */
function commandsIn(help: string, prefix: string): string[] {
  const lines = help.split('\n').map((line) => line.trim());
  return lines
    .filter((line) => line.startsWith(prefix))
    .map((line) => line.slice(prefix.length).trim().split(/\s/, 1)[0] ?? '')
    .filter((name) => /^[a-z-]+$/.test(name));
}

const EXPECTED = [
  'daemon start',
  'daemon stop',
  'daemon restart',
  'daemon status',
  'create',
  'import',
  'list',
  'info',
  'tree',
  'rename',
  'delete',
  'set',
  'disk add',
  'disk remove',
  'disk resize',
  'path',
  'attach',
  'detach',
  'mount',
  'unmount',
  'snapshot take',
  'snapshot list',
  'snapshot restore',
  'snapshot delete',
  'snapshot rename',
  'snapshot diff',
  'clone',
  'reset-identity',
  'export',
  'run',
  'stop',
  'console',
  'base accept',
  'map',
  'check',
  'compact',
  'gc',
  'stats',
  'events',
  'completion',
];

t.test('the help lists every command, and each has its own', async (t) => {
  const top = (await helpOf()).split('Global options:')[0] ?? '';
  const found: string[] = [];
  for (const name of commandsIn(top, 'layerdisk ')) {
    const help = await helpOf(name);
    const body = help.split('Global options:')[0] ?? '';
    const inner = body.includes('Commands:') ? commandsIn(body, `layerdisk ${name} `) : [];
    found.push(...(inner.length === 0 ? [name] : inner.map((one) => `${name} ${one}`)));
  }
  t.same(found, EXPECTED);
  for (const command of EXPECTED) {
    const help = await helpOf(...command.split(' '));
    t.match(help, new RegExp(`^layerdisk ${command}`), command);
    t.match(help, /Example:\n {2}\S/);
    t.ok(help.slice(help.indexOf('Example:')).includes(`layerdisk ${command}`), 'of this command');
    t.match(help, /--store .*\n[\s\S]*--json .*\n[\s\S]*--quiet/, 'and the global options');
  }
});

t.test('what is asked for, and all that an option takes', async (t) => {
  for (const words of ['help', 'help create', '--json help create', 'create --help']) {
    t.ok(asksForHelp(words.split(' ')), words);
  }
  for (const words of ['create help', 'info help', 'run web -- help', '--store help list']) {
    t.notOk(asksForHelp(words.split(' ')), `${words}: a name`);
  }
  t.match(await helpText(['help', 'snapshot', 'take']), /^layerdisk snapshot take/);
  t.match(await helpOf('create'), /kind=KIND[\s\S]*write-through/);
});

t.test('the version is the package’s', async (t) => {
  const program = await buildProgram(['--version']);
  const output = await new Promise((done) => {
    void program.parse(['--version'], {}, (_error, _argv, text) => done(text));
  });
  const file = new URL('../../package.json', import.meta.url);
  t.equal(JSON.parse(readFileSync(file, 'utf8')).version, VERSION);
  t.equal(output, VERSION);
});

/** As far as yargs shows it to nobody. */
interface Usage {
  help(): string;
}
interface Internals {
  getInternalMethods(): { getUsageInstance(): Usage };
}

t.test('a command that runs lays out no help', async (t) => {
  const program = await buildProgram(['stats', '--socket', '/nonexistent/socket']);
  const usage = (program as unknown as Internals).getInternalMethods().getUsageInstance();
  const help = usage.help.bind(usage);
  let laidOut = 0;
  usage.help = () => {
    laidOut += 1;
    return help();
  };
  await t.rejects(async () => program.parseAsync(), { code: 'unreachable' });
  t.equal(laidOut, 0);
  t.match(await program.getHelp(), /layerdisk stats/, 'it is there for who asks');
  t.equal(laidOut, 1);
});
