/**
 * What each command line asks the daemon, and what it prints: for people, for scripts, and names
 * only.
 */
import { basename, dirname } from 'node:path';
import t from 'tap';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { runBatch, runCli } from './run-cli.js';

interface Case {
  readonly args: string;
  readonly method: string;
  readonly params: object;
  /** Of the human output. */
  readonly human: RegExp;
  /** All of the `-q` output. */
  readonly names: string;
}

const GiB = 2 ** 30;
const CASES: readonly Case[] = [
  {
    args: 'daemon status',
    method: 'daemon.status',
    params: {},
    human: /^store: +\/store$/m,
    names: '/store\n',
  },
  {
    args:
      'create web --disk root=10G --disk 1.5TiB,allocation=static --vcpus 2 --memory 512M ' +
      '--nic nat --nic bridged,mac=52-54-00-AA-BB-CC,network=br0',
    method: 'create',
    params: {
      vm: 'web',
      disks: [
        { name: 'root', size: 10 * GiB },
        { size: 1536 * GiB, allocation: 'static' },
      ],
      vcpus: 2,
      memory: GiB / 2,
      nics: [{ mode: 'nat' }, { mode: 'bridged', mac: '52:54:00:aa:bb:cc', network: 'br0' }],
    },
    human: /^created web: 1 disk, 1 NIC, 2 vCPUs, 2 GiB memory\n {2}disk0: 10 GiB {2}\/mnt/,
    names: 'web\n',
  },
  {
    args:
      'export web@v1 out.VMDK --disk root --subformat monolithicFlat --allocation static ' +
      '--differencing --force',
    method: 'export',
    params: {
      vm: 'web',
      snapshot: 'v1',
      disk: 'root',
      path: 'CWD/out.VMDK',
      format: 'vmdk',
      subformat: 'monolithicFlat',
      allocation: 'static',
      differencing: true,
      force: true,
    },
    human: /^exported web@v1 to CWD\/out\.VMDK: vmdk \(plain\), 1 MiB on the host\n$/,
    names: 'CWD/out.VMDK\n',
  },
  {
    args:
      'import CWD/a.qcow2 /images/b.vmdk web --format auto --copy --allow-folder sub ' +
      '--parent p.vhd',
    method: 'import',
    params: {
      files: ['CWD/a.qcow2', '/images/b.vmdk'],
      vm: 'web',
      format: 'auto',
      copy: true,
      allowFolders: ['CWD/sub'],
      parent: 'CWD/p.vhd',
    },
    human: /^imported web/,
    names: 'web\n',
  },
  {
    args: 'list',
    method: 'list',
    params: {},
    human: /^NAME +DISKS +SIZE .*\nweb +1 +10 GiB +2 +2 +2 GiB +1 +- +2026-01-02 03:04:05\ndb /,
    names: 'web\ndb\n',
  },
  {
    args: 'info web',
    method: 'info',
    params: { vm: 'web' },
    human: /^memory: +2 GiB \(2147483648 bytes\)$[\s\S]*golden@v1[\s\S]*first \?\[31mred/m,
    names: 'web\n',
  },
  {
    args: 'tree web',
    method: 'tree',
    params: { vm: 'web' },
    human: /^web\n`-- clean {2}first {2}\[clones: test\]\n {4}\|-- later\n {4}`-- \* \(current/,
    names: 'web\nweb@clean\nweb@later\n',
  },
  { args: 'tree', method: 'tree', params: {}, human: /^web/, names: 'web\nweb@clean\nweb@later\n' },
  {
    args: 'rename web www',
    method: 'rename',
    params: { vm: 'web', name: 'www' },
    human: /^renamed web to www\n$/,
    names: 'www\n',
  },
  {
    args: 'rename list help',
    method: 'rename',
    params: { vm: 'list', name: 'help' },
    human: /^renamed list to help\n$/,
    names: 'help\n',
  },
  {
    args: 'delete web',
    method: 'delete',
    params: { vm: 'web' },
    human: /^deleted web; 1 delta kept for its clones\n$/,
    names: 'web\n',
  },
  {
    args: 'set web --vcpus 4 --nic none',
    method: 'set',
    params: { vm: 'web', vcpus: 4, nics: [{ mode: 'none' }] },
    human: /^changed web/,
    names: 'web\n',
  },
  {
    args: 'path web@clean --disk root',
    method: 'path',
    params: { vm: 'web', snapshot: 'clean', disk: 'root' },
    human: /^\/mnt\/disks\/web\/root\.raw\n$/,
    names: '/mnt/disks/web/root.raw\n',
  },
  {
    args: 'attach web@clean --read-only --direct-io',
    method: 'attach',
    params: { vm: 'web', snapshot: 'clean', readOnly: true, directIo: true },
    human: /^\/dev\/loop7\n$/,
    names: '/dev/loop7\n',
  },
  {
    args: 'detach web --disk root',
    method: 'detach',
    params: { target: { vm: 'web', disk: 'root' } },
    human: /^detached \/dev\/loop7\n$/,
    names: '/dev/loop7\n',
  },
  {
    args: 'detach /dev/loop7',
    method: 'detach',
    params: { device: '/dev/loop7' },
    human: /^detached/,
    names: '/dev/loop7\n',
  },
  {
    args: 'mount web dir --partition 2 --read-only',
    method: 'mount',
    params: { vm: 'web', directory: 'CWD/dir', partition: 2, readOnly: true },
    human: /^mounted \/dev\/loop7p1 \(ext4\) on CWD\/dir\n$/,
    names: 'CWD/dir\n',
  },
  {
    args: 'unmount ./dir/',
    method: 'unmount',
    params: { directory: 'CWD/dir' },
    human: /^unmounted CWD\/dir\n$/,
    names: '',
  },
  {
    args: 'snapshot take web@s1 -m 123',
    method: 'snapshot.take',
    params: { vm: 'web', snapshot: 's1', message: '123' },
    human: /^took web@s1 \(consistent\)\n$/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot list web',
    method: 'snapshot.list',
    params: { vm: 'web' },
    human: /^ {3}NAME .*\n {3}clean .*\n\* {2}later .* clean /,
    names: 'web@clean\nweb@later\n',
  },
  {
    args: 'snapshot restore web@s1 --discard',
    method: 'snapshot.restore',
    params: { vm: 'web', snapshot: 's1', discard: true },
    human: /^restored web to s1\n$/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot restore web@s1 --save-current',
    method: 'snapshot.restore',
    params: { vm: 'web', snapshot: 's1', saveCurrent: true },
    human: /^saved the current state as web@saved\nrestored web to s1\n$/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot restore --save-current web@s1',
    method: 'snapshot.restore',
    params: { vm: 'web', snapshot: 's1', saveCurrent: true },
    human: /^saved/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot restore web@s1 --save-current before',
    method: 'snapshot.restore',
    params: { vm: 'web', snapshot: 's1', saveCurrent: 'before' },
    human: /^saved/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot delete web@s1',
    method: 'snapshot.delete',
    params: { vm: 'web', snapshot: 's1' },
    human: /^deleted web@s1\n$/,
    names: 'web@s1\n',
  },
  {
    args: 'snapshot rename web@s1 s2',
    method: 'snapshot.rename',
    params: { vm: 'web', snapshot: 's1', name: 's2' },
    human: /^renamed web@s1 to web@s2\n$/,
    names: 'web@s2\n',
  },
  {
    args: 'export web --libvirt-xml dom.xml --force',
    method: 'export.machine',
    params: { vm: 'web', kind: 'libvirt-xml', path: 'CWD/dom.xml', force: true },
    human: /^wrote CWD\/dom\.xml\nnote: be careful\nnote: as long as it is in use there/,
    names: 'CWD/dom.xml\n',
  },
  {
    args: 'export web --vmdk-descriptor web.vmdk --disk root',
    method: 'export.machine',
    params: { vm: 'web', kind: 'vmdk', disk: 'root', path: 'CWD/web.vmdk' },
    human: /^wrote CWD\/web\.vmdk\n/,
    names: 'CWD/web.vmdk\n',
  },
  {
    args: 'clone web copy --full --mac keep-nat --vcpus 8',
    method: 'clone',
    params: { vm: 'web', name: 'copy', mode: 'full', mac: 'keep-nat', vcpus: 8 },
    human: /^took snapshot web@for-clone\ncloned copy/,
    names: 'copy\n',
  },
  {
    args: 'clone web@clean copy --linked --serials keep',
    method: 'clone',
    params: { vm: 'web', snapshot: 'clean', name: 'copy', mode: 'linked', serials: 'keep' },
    human: /cloned copy/,
    names: 'copy\n',
  },
  {
    args: 'stop web --timeout 5',
    method: 'stop',
    params: { vm: 'web', timeoutSeconds: 5 },
    human: /^stopped web\n$/,
    names: 'web\n',
  },
  {
    args: 'base accept web',
    method: 'base.accept',
    params: { vm: 'web' },
    human: /^accepted \/images\/base\.qcow2\n$/,
    names: '/images/base.qcow2\n',
  },
  {
    args: 'check web --deep',
    method: 'check',
    params: { vm: 'web', deep: true },
    human: /^checked 1 VM, 2 deltas; read 8 KiB\n$/,
    names: '',
  },
  {
    args: 'gc --dry-run',
    method: 'gc',
    params: { dryRun: true },
    human: /^would remove deltas\/1\nwould remove 1 file, 4 KiB\n$/,
    names: 'deltas/1\n',
  },
  {
    args: 'stats web',
    method: 'stats',
    params: { vm: 'web' },
    human:
      /^up for: +1:30$[\s\S]*^file system: .* free$[\s\S]*^web\/disk0 +1 +4 KiB +2 +8 KiB +3 +4$/m,
    names: 'web\n',
  },
];

t.test('every command', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const cwd = temporaryFolder(t);
  const place = (text: string) => text.replaceAll('CWD', cwd);
  const lines = CASES.flatMap((one) => {
    const args = ['--socket', path, ...place(one.args).split(' ')];
    return [args, [...args, '-q'], [...args, '--json']];
  });
  const results = await runBatch(lines, cwd);
  // A list says how much room there is, too, except to those who want names only.
  const asides = calls.filter(
    ({ method }, index) => method === 'daemon.status' && calls[index - 1]?.method === 'list',
  );
  t.equal(asides.length, 2);
  const main = calls.filter((call) => !asides.includes(call));
  for (const [index, one] of CASES.entries()) {
    const [human, names, json] = results.slice(index * 3);
    t.match(human?.stdout, new RegExp(place(one.human.source), one.human.flags), one.args);
    t.equal(names?.stdout, place(one.names), '-q');
    t.same([human?.code, names?.code, json?.code], [0, 0, 0], `${human?.stderr}`);
    const params = JSON.parse(place(JSON.stringify(one.params)));
    const asked = { method: one.method, params };
    t.same(main.slice(index * 3, index * 3 + 3), [asked, asked, asked]);
    const { signal } = new AbortController();
    const context = { signal, progress: () => {}, event: () => {} };
    const result = await recordingHandlers().handlers[one.method as 'list'](params, context);
    t.same(JSON.parse(json?.stdout ?? ''), result, '--json is the result itself');
  }
});

t.test('places from the environment and from --store', async (t) => {
  const { handlers } = recordingHandlers();
  const { path, folder } = await serve(t, handlers);
  const bySocket = await runCli(['list', '-q'], { env: { LAYERDISK_SOCKET: path } });
  t.equal(bySocket.stdout, 'web\ndb\n');
  const byStore = await runCli(['list', '-q'], { env: { LAYERDISK_STORE: folder } });
  t.equal(byStore.stdout, 'web\ndb\n');
  const relative = await runCli(['--store', basename(folder), 'list', '-q'], {
    cwd: dirname(folder),
  });
  t.equal(relative.stdout, 'web\ndb\n');
  const flag = await runCli(['list', '--store', '/nonexistent'], {
    env: { LAYERDISK_SOCKET: path },
  });
  t.equal(flag.code, 3, 'the flag is stronger');
  t.match(
    flag.stderr,
    /no daemon answers on \/nonexistent\/control\.sock\nhint: layerdisk --store/,
  );
});
